"""Episodic memory: a scratch database on the source server, restored to the twin."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support.engines import Adapter
from support.engines.mongodb import Mongodb, connected

if TYPE_CHECKING:
    from neuroca_backup.model.endpoint import Endpoint


class EpisodicMemory(Mongodb):
    """As the other engine of MongoDB, by collections."""

    def __init__(self, source: Endpoint, target: Endpoint, name: str) -> None:
        super().__init__(source, target, name)
        self.options: dict[str, Any] = {"collections": [f"{name}.*"]}

    def structural_damage(self, files: Path) -> Iterator[tuple[str, Callable[[], None]]]:
        for path in sorted(files.rglob("*.json*")):
            data = path.read_bytes()
            lines = data.split(b"\n")
            for damaged in (
                b"",
                data[:-7],
                data[: len(data) // 2],
                b"\n".join(lines[1:]),
                data + lines[0] + b"\n",
                data + b"{}\n",
                data.replace(b'"', b"'", 2),
            ):
                yield path.name, lambda path=path, damaged=damaged: path.write_bytes(damaged)  # type: ignore[misc]
            yield path.name, path.unlink


@contextmanager
def adapter(request: pytest.FixtureRequest) -> Iterator[Adapter]:
    source = request.getfixturevalue("mongodb")
    # Only a server that is not there is waited for.
    source = replace(source, extra={**source.extra, "serverSelectionTimeoutMS": 2000})
    twin = request.getfixturevalue("mongodb_twin")
    name = f"tier_{abs(hash(request.node.name)):x}"
    made = EpisodicMemory(source, twin, name)
    try:
        with connected(source) as client:
            client[name]["second"].insert_many({"n": n} for n in range(9))
            client[name]["items"].create_index("content")
            # In this order, which is not that of the alphabet.
            client[name]["items"].create_index([("n", -1), ("content", 1)])
            client[name].create_collection("view", viewOn="items", pipeline=[{"$limit": 5}])
        made.add(200)
        yield made
    finally:
        for endpoint in (source, twin):
            with connected(endpoint) as client:
                client.drop_database(name)
