"""NCA-shaped content for Redis: working memory in databases 0 and 1."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from typing import TYPE_CHECKING

from neuroca_backup.sandbox.seed_mongodb import episode_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from neuroca_backup.model.endpoint import Endpoint

_DATABASES = (0, 1)
_ITEMS = 2_490  # twice two keys each, and about forty index keys: ten thousand keys
_TIERS = ("stm", "mtm", "ltm")
_TAGS = 11
# 1 January 2099 in Unix seconds: no key expires between a backup and its comparison.
_EXPIRY = 4_070_908_800
_BATCH = 1000


def counts(scale: float) -> dict[str, int]:
    """Return how many keys each logical database holds after `seed`."""
    found: Counter[str] = Counter()
    for database in _DATABASES:
        items = [(n, _tier(n)) for n in range(_items(scale))]
        keys = {key for n, tier in items for key in _index_keys(n, tier)}
        found[str(database)] = 2 * len(items) + len(keys) + 1
    return dict(found)


def seed(endpoint: Endpoint, *, scale: float) -> None:
    """Replace databases 0 and 1; the other databases are left alone."""
    import redis  # noqa: PLC0415 - importing the sandbox must stay cheap

    for database in _DATABASES:
        prefix = "" if database == 0 else "neuroca:"
        with redis.Redis(
            host=endpoint.host,
            port=endpoint.port or 6379,
            username=endpoint.user or None,
            password=endpoint.password,
            db=database,
        ) as client:
            client.flushdb()
            commands = client.pipeline(transaction=False)
            for arguments in _commands(_items(scale), prefix):
                commands.execute_command(*arguments)
                if len(commands) >= _BATCH:
                    commands.execute()
            commands.execute()


def _commands(items: int, prefix: str) -> Iterator[tuple[str | int | float, ...]]:
    for n in range(items):
        tier = _tier(n)
        digest = hashlib.sha256(f"{prefix}{n}".encode()).hexdigest()
        item = f"{prefix}memory:{tier}:{_id(n)}"
        yield ("HSET", item, "id", _id(n), "content", digest * 3, "importance", n % 100 / 100)
        about = {"status": _status(n), "tags": [_tag(n)], "source": digest}
        metadata = json.dumps({**about, "episode_id": episode_id(n)})
        yield ("SET", f"{prefix}memory:{tier}:metadata:{_id(n)}", metadata)
        if tier != "ltm":
            yield ("EXPIREAT", item, _EXPIRY + n)
        for key in _index_keys(n, tier):
            yield ("SADD", prefix + key, _id(n))
        yield ("ZADD", f"{prefix}memory:recent", n / 8, _id(n))


def _index_keys(number: int, tier: str) -> tuple[str, str]:
    return (
        f"memory:{tier}:index:status:{_status(number)}",
        f"memory:{tier}:index:tag:{_tag(number)}",
    )


def _items(scale: float) -> int:
    return max(1, round(_ITEMS * scale))


def _id(number: int) -> str:
    return hashlib.md5(f"item {number}".encode(), usedforsecurity=False).hexdigest()


def _tier(number: int) -> str:
    return _TIERS[number % len(_TIERS)]


def _status(number: int) -> str:
    return "active" if number % 5 else "archived"


def _tag(number: int) -> str:
    return f"tag{number % _TAGS}"
