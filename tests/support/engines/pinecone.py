"""Pinecone: two doubles of its published API, one that is dumped, one to restore to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from neuroca_backup.model.endpoint import Endpoint
from support.doubles.pinecone_api import PineconeDouble
from support.engines import Adapter
from support.vector_damage import structural_damage

if TYPE_CHECKING:
    from pinecone import Index, Pinecone

INDEX = "neuroca-semantic"
NAMESPACES = ("", "tenant-a")
DIMENSION = 8
DENSE = {"_values": {"type": "dense_vector", "dimension": DIMENSION, "metric": "cosine"}}
HYBRID = {
    "_values": {"type": "dense_vector", "dimension": DIMENSION, "metric": "dotproduct"},
    "_sparse_values": {"type": "sparse_vector"},
}


def endpoint_of(double: PineconeDouble) -> Endpoint:
    """Return where a double's control plane is."""
    return Endpoint(kind="pinecone", host="127.0.0.1", port=double.port, password=double.api_key)


@contextmanager
def client_of(double: PineconeDouble) -> Iterator[Pinecone]:
    """Give the vendor's client, as an application would use it."""
    from pinecone import Pinecone  # noqa: PLC0415 - takes half a second

    client = Pinecone(api_key=double.api_key, host=double.url)
    try:
        yield client
    finally:
        client.close()


@contextmanager
def index_of(double: PineconeDouble, name: str = INDEX) -> Iterator[Index]:
    """Give the vendor's client of one index."""
    with client_of(double) as client:
        index = client.index(host=client.indexes.describe(name).host)
        try:
            yield index
        finally:
            index.close()


def create(double: PineconeDouble, name: str = INDEX, *, fields: Any = None, **more: Any) -> None:
    """Create an index."""
    with client_of(double) as client:
        client.indexes.create(name=name, schema={"fields": fields or DENSE}, timeout=-1, **more)


def add(double: PineconeDouble, name: str = INDEX, *, count: int, namespace: str = "") -> None:
    """Add vectors to a namespace."""
    first = len(double.vectors(name, namespace))
    values = np.random.default_rng([first, len(namespace)]).normal(size=(count, DIMENSION))
    vectors = [
        {
            "id": f"memory-{first + n:06d}",
            "values": values[n].tolist(),
            "metadata": {"topic": f"concept {n % 7}", "strength": n / 7, "tags": ["a", "b"]},
        }
        for n in range(count)
    ]
    with index_of(double, name) as index:
        for at in range(0, count, 500):
            index.upsert(vectors=vectors[at : at + 500], namespace=namespace)


class PineconeAdapter:
    """One index with two namespaces on the first double, restored to the second."""

    options: dict[str, Any] = {"indexes": [INDEX]}  # noqa: RUF012 - the protocol's

    def __init__(self, one: PineconeDouble, two: PineconeDouble) -> None:
        self._doubles = {one.port: one, two.port: two}
        self._one, self._two = one, two
        self.source, self.target = endpoint_of(one), endpoint_of(two)

    def add(self, count: int) -> None:
        add(self._one, count=count)

    def count(self, endpoint: Endpoint) -> int:
        double = self._doubles[endpoint.port or 0]
        return sum(len(double.vectors(INDEX, namespace)) for namespace in NAMESPACES)

    def harm(self, endpoint: Endpoint) -> None:
        held = self._doubles[endpoint.port or 0].vectors(INDEX)
        held["memory-000007"]["metadata"] = {"topic": "another"}

    def fingerprint(self) -> object:
        return repr([(one.model, one.namespaces) for one in self._two.indexes.values()])

    def structural_damage(self, files: Path) -> Iterator[tuple[str, Callable[[], None]]]:
        return structural_damage(files)


@contextmanager
def adapter(request: pytest.FixtureRequest) -> Iterator[Adapter]:
    with PineconeDouble() as one, PineconeDouble(api_key="pcsk_another") as two:
        create(one)
        add(one, count=150)
        add(one, count=50, namespace="tenant-a")
        yield PineconeAdapter(one, two)
