"""Working memory: keys of every type in three databases of the one server, others beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support.engines import Adapter
from support.redis_keys import add_keys, client_of, content, flush

if TYPE_CHECKING:
    from neuroca_backup.model.endpoint import Endpoint


class WorkingMemory:
    """A server with 200 keys of the tier and one of somebody else, and a twin with that one."""

    def __init__(self, source: Endpoint, target: Endpoint) -> None:
        self.source, self.target = source, target
        self.options: dict[str, Any] = {"keys": ["memory:*"]}

    def add(self, count: int) -> None:
        with client_of(self.source) as client:
            client.delete("cache:7")
            add_keys(self.source, count)
            client.set("cache:7", "of somebody else")

    def count(self, endpoint: Endpoint) -> int:
        assert content(endpoint)[0][b"cache:7"][0] == b"of somebody else"
        keys = [key for one in content(endpoint).values() for key in one]
        assert not [key for key in keys if key.startswith(b"neuroca-restore:")]
        return sum(key.startswith(b"memory:") for key in keys)

    def harm(self, endpoint: Endpoint) -> None:
        with client_of(endpoint, 1) as client:
            assert client.hset("memory:1:hash", "content", "another") == 0

    def fingerprint(self) -> object:
        return content(self.target)

    def structural_damage(self, files: Path) -> Iterator[tuple[str, Callable[[], None]]]:
        for path in sorted(files.rglob("*.jsonl")):
            data = path.read_bytes()
            whole = data.split(b"\n")
            for damaged in (
                b"",
                data[: len(data) // 2],
                data[:-1],
                data + b"{}\n",
                b"\n".join([*whole[:-2], b""]),
                b"\n".join([*whole[:5], *whole[6:]]),
                b"\n".join(whole[1:]),
                data + whole[3] + b"\n",
                data.replace(b'"neuroca_memory":1', b'"neuroca_memory":2'),
                data.replace(b'"value":["', b'"value":[7,"', 1),
                data.replace(b"memory:", b"remory:", 1),
                data.replace(b'"expires_at":', b'"expires_at":-', 1)
                if b"expires_at" in data
                else b"",
            ):
                yield path.name, lambda path=path, damaged=damaged: path.write_bytes(damaged)  # type: ignore[misc]
            yield path.name, path.unlink


@contextmanager
def adapter(request: pytest.FixtureRequest) -> Iterator[Adapter]:
    source = request.getfixturevalue("redis_server")
    twin = request.getfixturevalue("redis_twin")
    flush(source, twin)
    add_keys(source, 200)
    for endpoint in (source, twin):
        with client_of(endpoint) as client:
            client.set("cache:7", "of somebody else")
    try:
        yield WorkingMemory(source, twin)
    finally:
        flush(source, twin)
