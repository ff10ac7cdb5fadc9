"""Keys of every type and encoding for the tests of Redis, and all that a client sees of them."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import redis

if TYPE_CHECKING:
    from neuroca_backup.model.endpoint import Endpoint

_YEAR = 365 * 24 * 3600


def client_of(endpoint: Endpoint, database: int = 0) -> redis.Redis:
    """Return a client of one database; bytes stay bytes."""
    return redis.Redis(
        host=endpoint.host,
        port=endpoint.port or 6379,
        username=endpoint.user or None,
        password=endpoint.password or None,
        db=database,
        protocol=2,
    )


def flush(*endpoints: Endpoint) -> None:
    """Empty every database, and make each server a master again."""
    for endpoint in endpoints:
        with client_of(endpoint) as client:
            client.execute_command("REPLICAOF", "NO", "ONE")
            client.config_set("masterauth", "")
            client.flushall()


def add_keys(endpoint: Endpoint, count: int) -> None:
    """Add `count` keys of all types, by turns, to databases 0, 1 and 9."""
    for number in (0, 1, 9):
        with client_of(endpoint, number) as client:
            begin = client.dbsize()
            share = count - 2 * (count // 4) if number == 0 else count // 4
            for n in range(begin, begin + share):
                _add(client, n)


def _add(client: redis.Redis, n: int) -> None:
    word = ("string", "hash", "list", "set", "zset", "stream")[n % 6]
    key = f"memory:{n}:{word}"
    if word == "string":
        client.set(key, f"value {n} " * (n % 30), ex=_YEAR + n if n % 4 == 0 else None)
    elif word == "hash":
        client.hset(key, mapping={"id": n, "content": "words " * (n % 60), "importance": n / 7})
    elif word == "list":
        client.rpush(key, *(f"item {i}" for i in range(n % 40 + 1)), n, -n)
    elif word == "set":
        client.sadd(key, *range(n, n + 20)) if n % 4 == 1 else client.sadd(key, "a", "b", str(n))
    elif word == "zset":
        client.zadd(key, {f"member {i}": i / 3 for i in range(n % 200 + 1)})
    else:
        for i in range(1, 8):
            client.xadd(key, {"n": n, "text": "x" * i}, id=f"{1000 + i}-1")
        client.xdel(key, "1003-1")
        client.xgroup_create(key, "readers", "0")
        client.xreadgroup("readers", "first", {key: ">"}, count=3)


def count_keys(endpoint: Endpoint) -> int:
    """Return how many keys all databases have."""
    return sum(len(keys) for keys in content(endpoint).values())


def content(endpoint: Endpoint) -> dict[int, dict[bytes, tuple[Any, int]]]:
    """Return every key of every database with its value and its expiry in seconds since 1970."""
    found: dict[int, dict[bytes, tuple[Any, int]]] = {}
    with client_of(endpoint) as client:
        keyspace: Any = client.info("keyspace")
    for name in keyspace:
        number = int(name[2:])
        with client_of(endpoint, number) as client:
            found[number] = {key: _seen(client, key) for key in client.scan_iter(count=1000)}
    return found


def _seen(client: redis.Redis, key: bytes) -> tuple[Any, int]:
    kind = client.type(key)
    expiry = 0
    left: Any = client.pttl(key)
    if left >= 0:
        seconds, micros = client.time()  # type: ignore[misc]
        expiry = round((seconds * 1000 + micros // 1000 + left) / 1000)
    value: Any
    if kind == b"string":
        value = client.get(key)
    elif kind == b"hash":
        value = client.hgetall(key)
    elif kind == b"list":
        value = client.lrange(key, 0, -1)
    elif kind == b"set":
        value = client.smembers(key)
    elif kind == b"zset":
        value = client.zrange(key, 0, -1, withscores=True)
    else:
        groups = [
            (
                group["name"],
                group["last-delivered-id"],
                [
                    (one["message_id"], one["consumer"], one["times_delivered"])
                    for one in client.xpending_range(key, group["name"], "-", "+", 1000)
                ],
            )
            for group in client.xinfo_groups(key)
        ]
        value = client.xrange(key), groups
    return value, expiry


def every_encoding(client: redis.Redis, *, many: int = 700) -> None:
    """Write values of every type in every form that a server keeps them in."""
    chance = random.Random(1)  # noqa: S311 - the same bytes each time
    strings = [b"", b"1", b"-129", b"40000", b"2147483648", b"007", b"x" * 20, b"ab" * 500]
    strings += [chance.randbytes(70), chance.randbytes(20_000), b"z" * 70_000]
    for n, value in enumerate(strings):
        client.set(f"string:{n}", value)
    for n in (3, many):
        texts = [f"value {i}" * (i % 50) for i in range(n)]
        numbers = [-1, -5000, 70_000, 3_000_000_000, -9_000_000_000_000]
        client.rpush(f"list:{n}", *range(n), *texts, *numbers)
        for width in (1, 20, 40):
            client.sadd(f"integers:{width}:{n}", *range(1 << width, (1 << width) + n))
        client.sadd(f"set:{n}", *(f"member {i}" for i in range(n)))
        client.zadd(f"zset:{n}", {f"member {i}": i * 0.1 - 3 for i in range(n)})
        client.zadd(f"zset:{n}", {"most": float("inf"), "least": float("-inf"), "whole": 7})
        client.hset(f"hash:{n}", mapping={f"field {i}": str(i) for i in range(n)})
        client.hset(f"wide:{n}", mapping={f"field {i}": "y" * (i % 300) for i in range(n)})
        key = f"stream:{n}"
        for i in range(n):
            fields: dict[Any, Any] = {"a": i, "b": "x" * (i % 70)} if i % 7 else {"c": 1}
            client.xadd(key, fields, id=f"{1000 + i}-{i % 3}")
        client.xdel(key, "1001-1")
        client.xgroup_create(key, "first", "0")
        client.xgroup_create(key, "second", "$")
        client.xreadgroup("first", "one", {key: ">"}, count=5)
        client.xreadgroup("first", "other", {key: ">"}, count=2)
        client.xack(key, "first", "1000-0")
    client.rpush("long items", b"q" * 9000, chance.randbytes(90_000), b"t")
    client.set("expires", 1, px=10**9)
    client.expire("hash:3", 100_000)
    client.hset("long field", mapping={"k" * 100: "v" * 5000})
