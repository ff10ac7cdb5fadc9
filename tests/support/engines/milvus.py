"""Milvus: a scratch database, restored to another one of the same server."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support.engines import Adapter
from support.milvus import add_rows, client, create, drop_database

if TYPE_CHECKING:
    from neuroca_backup.model.endpoint import Endpoint

COLLECTION = "items"


class Milvus:
    """A collection with fields of every common kind in a database of its own."""

    def __init__(self, source: Endpoint, target: Endpoint) -> None:
        self.source, self.target = source, target
        self.options: dict[str, Any] = {}
        self.next = 0

    def add(self, count: int) -> None:
        with client(self.source) as opened:
            add_rows(opened, COLLECTION, first=self.next, count=count)
        self.next += count

    def count(self, endpoint: Endpoint) -> int:
        with client(endpoint) as opened:
            found = opened.query(COLLECTION, output_fields=["count(*)"], consistency_level="Strong")
        return int(found[0]["count(*)"])

    def harm(self, endpoint: Endpoint) -> None:
        with client(endpoint) as opened:
            row = dict(opened.query(COLLECTION, filter="id == 7", output_fields=["*"])[0])
            row["content"] = "another"
            opened.delete(COLLECTION, ids=[7])
            opened.insert(COLLECTION, [row])

    def fingerprint(self) -> object:
        with client(self.target) as opened:
            return sorted(opened.list_collections()), self.count(self.target)

    def structural_damage(self, files: Path) -> Iterator[tuple[str, Callable[[], None]]]:
        def changed(path: Path, change: Callable[[bytes], bytes]) -> tuple[str, Callable[[], None]]:
            data = path.read_bytes()
            return path.name, lambda: _rewrite(path, change(data))

        for path in sorted(files.rglob("*.*")):
            yield path.name, path.unlink
            yield changed(path, lambda data: data[: len(data) // 2])
            yield changed(path, lambda data: data[:-20])
            yield changed(path, lambda _: b"")
            middle = path.stat().st_size // 3
            yield changed(
                path, lambda data, at=middle: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
            )


def _rewrite(path: Path, data: bytes) -> None:
    path.write_bytes(data)


@contextmanager
def adapter(request: pytest.FixtureRequest) -> Iterator[Adapter]:
    server = request.getfixturevalue("milvus")
    # To load a collection takes Milvus seconds: one source serves all tests, set back for each.
    source = replace(server, database="contract_source")
    target = replace(server, database=f"target_{secrets.token_hex(4)}")
    with client(replace(server, database="")) as opened:
        opened.create_database(target.database)
        known = source.database in opened.list_databases()
        if not known:
            opened.create_database(source.database)
    made = Milvus(source, target)
    with client(source) as opened:
        if not known:
            create(opened, COLLECTION)
            made.add(200)
        else:
            opened.delete(COLLECTION, filter="id >= 200")
            made.next = 200
    try:
        yield made
    finally:
        drop_database(target)
