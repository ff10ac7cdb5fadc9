"""Qdrant: two doubles of its published API, one that is dumped, one to restore to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from neuroca_backup.model.endpoint import Endpoint
from support.doubles.qdrant_api import QdrantDouble
from support.engines import Adapter
from support.vector_damage import structural_damage

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

COLLECTION = "neuroca_semantic"
DIMENSION = 8


def endpoint_of(double: QdrantDouble) -> Endpoint:
    """Return where a double is."""
    return Endpoint(kind="qdrant", host="127.0.0.1", port=double.port, password=double.api_key)


@contextmanager
def client_of(double: QdrantDouble) -> Iterator[QdrantClient]:
    """Give the vendor's client, as an application would use it."""
    from qdrant_client import QdrantClient  # noqa: PLC0415 - takes most of a second

    client = QdrantClient(
        url=double.url, metadata={"api-key": double.api_key}, check_compatibility=False
    )
    try:
        yield client
    finally:
        client.close()


def fill(double: QdrantDouble, name: str = COLLECTION, *, count: int = 200) -> None:
    """Create a collection with one vector a point, and so many points."""
    from qdrant_client import models  # noqa: PLC0415 - as above

    with client_of(double) as client:
        client.create_collection(
            name,
            vectors_config=models.VectorParams(size=DIMENSION, distance=models.Distance.COSINE),
        )
    add(double, name, count=count)


def add(double: QdrantDouble, name: str = COLLECTION, *, count: int) -> None:
    """Add points to it."""
    from qdrant_client import models  # noqa: PLC0415 - as above

    first = len(double.points(name))
    vectors = np.random.default_rng(first).normal(size=(count, DIMENSION))
    with client_of(double) as client:
        client.upsert(
            name,
            [
                models.PointStruct(
                    id=first + n,
                    vector=vectors[n].tolist(),
                    payload={"memory": f"concept {first + n}", "strength": n / 7},
                )
                for n in range(count)
            ],
            wait=True,
        )


class Qdrant:
    """One collection on the first double, restored to the second."""

    options: dict[str, Any] = {"collections": "all"}  # noqa: RUF012 - the protocol's

    def __init__(self, one: QdrantDouble, two: QdrantDouble) -> None:
        self._doubles = {one.port: one, two.port: two}
        self._one, self._two = one, two
        self.source, self.target = endpoint_of(one), endpoint_of(two)

    def add(self, count: int) -> None:
        add(self._one, count=count)

    def count(self, endpoint: Endpoint) -> int:
        return len(self._doubles[endpoint.port or 0].points(COLLECTION))

    def harm(self, endpoint: Endpoint) -> None:
        self._doubles[endpoint.port or 0].points(COLLECTION)[7]["payload"] = {"memory": "another"}

    def fingerprint(self) -> object:
        return repr((self._two.stored, self._two.aliases))

    def structural_damage(self, files: Path) -> Iterator[tuple[str, Callable[[], None]]]:
        return structural_damage(files)


@contextmanager
def adapter(request: pytest.FixtureRequest) -> Iterator[Adapter]:
    with QdrantDouble() as one, QdrantDouble(api_key="another_secret") as two:
        fill(one)
        yield Qdrant(one, two)
