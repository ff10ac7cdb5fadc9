"""MongoDB: a scratch database on the source server, restored to the twin."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pymongo
import pytest

from support.engines import Adapter

if TYPE_CHECKING:
    from neuroca_backup.model.endpoint import Endpoint


def connected(endpoint: Endpoint, **changes: Any) -> pymongo.MongoClient[dict[str, Any]]:
    """Return an open client."""
    login = {"username": endpoint.user, "password": endpoint.password, **endpoint.extra, **changes}
    return pymongo.MongoClient(endpoint.host, endpoint.port, **login)


class Mongodb:
    """MongoDB: a scratch database on the one server, restored to the twin."""

    def __init__(self, source: Endpoint, target: Endpoint, name: str) -> None:
        self.source, self.target, self.name = source, target, name
        self.options = {"databases": [name], "jobs": 2}

    def add(self, count: int) -> None:
        with connected(self.source) as client:
            documents = client[self.name]["items"]
            begun = documents.count_documents({})
            documents.insert_many(
                {"_id": begun + n, "content": f"memory {n}", "state": bytes(500)}
                for n in range(count)
            )

    def count(self, endpoint: Endpoint) -> int:
        with connected(endpoint) as client:
            return client[self.name]["items"].count_documents({})

    def harm(self, endpoint: Endpoint) -> None:
        with connected(endpoint) as client:
            client[self.name]["items"].update_one({"_id": 7}, {"$set": {"content": "another"}})

    def fingerprint(self) -> object:
        with connected(self.target) as client:
            return (
                {
                    name: sorted(client[name].list_collection_names())
                    for name in client.list_database_names()
                    if name not in {"local", "config"}
                },
                sorted(one["_id"] for one in client.admin["system.users"].find()),
                client[self.name].command("dbHash")["md5"],
            )

    def structural_damage(self, files: Path) -> Iterator[tuple[str, Callable[[], None]]]:
        def changed(path: Path, change: Callable[[bytes], bytes]) -> tuple[str, Callable[[], None]]:
            data = path.read_bytes()
            return path.relative_to(files).as_posix(), lambda: _rewrite(path, change(data))

        for path in sorted(files.rglob("*")):
            if path.is_dir():
                continue
            yield changed(path, lambda data: data[:-7])
            yield changed(path, lambda data: data[: len(data) // 2])
            yield changed(path, lambda _: b"")
            if path.suffix == ".bson":
                yield path.relative_to(files).as_posix(), path.unlink
                yield changed(path, lambda data: data[int.from_bytes(data[:4], "little") :])
                yield changed(path, lambda data: data + data[: int.from_bytes(data[:4], "little")])


def _rewrite(path: Path, data: bytes) -> None:
    path.write_bytes(data)


@contextmanager
def adapter(request: pytest.FixtureRequest) -> Iterator[Adapter]:
    source = request.getfixturevalue("mongodb")
    # Only a server that is not there is waited for.
    source = replace(source, extra={**source.extra, "serverSelectionTimeoutMS": 2000})
    twin = request.getfixturevalue("mongodb_twin")
    name = f"engine_{abs(hash(request.node.name)):x}"
    made = Mongodb(source, twin, name)
    try:
        with connected(source) as client:
            client[name]["second"].insert_many({"n": n} for n in range(9))
            client[name]["items"].create_index("content")
            client[name].create_collection("view", viewOn="items", pipeline=[{"$limit": 5}])
        made.add(200)
        yield made
    finally:
        for endpoint in (source, twin):
            with connected(endpoint) as client:
                client.drop_database(name)
                client.drop_database("neuroca_restore")
