"""Redis: keys of every type in three databases of the one server, restored to the twin."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.engines import Adapter
from support.redis_keys import add_keys, client_of, count_keys, flush

if TYPE_CHECKING:
    from neuroca_backup.model.endpoint import Endpoint


class RedisRdb:
    """Redis: a server with 200 keys, and a twin."""

    def __init__(self, source: Endpoint, target: Endpoint) -> None:
        self.source, self.target = source, target
        self.options: dict[str, object] = {}

    def add(self, count: int) -> None:
        add_keys(self.source, count)

    def count(self, endpoint: Endpoint) -> int:
        return count_keys(endpoint)

    def harm(self, endpoint: Endpoint) -> None:
        with client_of(endpoint, 1) as client:
            assert client.hset("memory:1:hash", "content", "another") == 0

    def fingerprint(self) -> object:
        with client_of(self.target) as client:
            held = {name: words["keys"] for name, words in client.info("keyspace").items()}
            return held, client.config_get("master*"), client.role()[0]

    def structural_damage(self, files: Path) -> Iterator[tuple[str, Callable[[], None]]]:
        path = files / "dump.rdb"
        data = path.read_bytes()
        for damaged in (
            b"",
            data[: len(data) // 2],
            data[:-1],
            data + b"0123456789" * 4,
            b"RADIS" + data[5:],
            b"REDIS0099" + data[9:].replace(b"\xfb", b"\xf0"),
            data.replace(b"memory:1:hash", b"memory:1:has\xff", 1)[:-30],
            # As if an earlier snapshot had been put in its place.
            data[:9] + b"\xff" + data[-8:],
        ):
            yield "dump.rdb", lambda damaged=damaged: _rewrite(path, damaged)  # type: ignore[misc]
        yield "dump.rdb", path.unlink


def _rewrite(path: Path, data: bytes) -> None:
    path.write_bytes(data)


@contextmanager
def adapter(request: pytest.FixtureRequest) -> Iterator[Adapter]:
    source = request.getfixturevalue("redis_server")
    twin = request.getfixturevalue("redis_twin")
    flush(source, twin)
    add_keys(source, 200)
    try:
        yield RedisRdb(source, twin)
    finally:
        flush(source, twin)
