"""Milvus for tests: sessions, and a collection with fields of every common kind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from neuroca_backup.model.endpoint import Endpoint

DIMENSION = 16


@contextmanager
def client(endpoint: Endpoint) -> Iterator[Any]:
    """Give a session with the endpoint's database."""
    pymilvus: Any = import_module("pymilvus")
    opened = pymilvus.MilvusClient(
        uri=f"http://{endpoint.host}:{endpoint.port}",
        user=endpoint.user,
        password=endpoint.password,
        db_name=endpoint.database or "default",
        dedicated=True,
        timeout=30,
    )
    try:
        yield opened
    finally:
        opened.close()


def drop_database(endpoint: Endpoint) -> None:
    """Drop a database with all that is in it; none there is no error."""
    with client(replace(endpoint, database="")) as opened:
        if endpoint.database not in opened.list_databases():
            return
    with client(endpoint) as opened:
        for name in opened.list_collections():
            for alias in opened.describe_collection(name).get("aliases") or ():
                opened.drop_alias(alias)
            opened.drop_collection(name)
        opened.drop_database(endpoint.database)


def create(
    opened: Any,
    name: str,
    *,
    dimension: int = DIMENSION,
    auto_id: bool = False,
    loaded: bool = True,
    indexed: bool = True,
    text_key: bool = False,
    binary: bool = False,
    **words: Any,
) -> None:
    """Create a collection with a key, scalars, an array, JSON, dynamic fields and a vector."""
    kinds: Any = import_module("pymilvus").DataType
    schema = opened.create_schema(
        auto_id=auto_id, enable_dynamic_field=True, description="memories of a test"
    )
    if text_key:
        schema.add_field("id", kinds.VARCHAR, max_length=64, is_primary=True)
    else:
        schema.add_field("id", kinds.INT64, is_primary=True)
    schema.add_field("content", kinds.VARCHAR, max_length=200, description="what is remembered")
    schema.add_field("tags", kinds.ARRAY, element_type=kinds.VARCHAR, max_capacity=4, max_length=9)
    schema.add_field("numbers", kinds.ARRAY, element_type=kinds.DOUBLE, max_capacity=4)
    schema.add_field("metadata", kinds.JSON)
    schema.add_field("score", kinds.FLOAT)
    schema.add_field("exact", kinds.DOUBLE)
    schema.add_field("small", kinds.INT8)
    schema.add_field("medium", kinds.INT16)
    schema.add_field("plain", kinds.INT32)
    schema.add_field("verified", kinds.BOOL)
    kind = kinds.BINARY_VECTOR if binary else kinds.FLOAT_VECTOR
    schema.add_field("embedding", kind, dim=dimension)
    opened.create_collection(name, schema=schema, consistency_level="Bounded", **words)
    if not indexed:
        return
    index = opened.prepare_index_params()
    if binary:
        index.add_index("embedding", "BIN_FLAT", "by_nearness", metric_type="HAMMING")
    else:
        index.add_index(
            "embedding",
            "HNSW",
            "by_nearness",
            metric_type="COSINE",
            params={"M": 8, "efConstruction": 64},
        )
    index.add_index("content", "Trie", "by_content")
    opened.create_index(name, index)
    if loaded:
        opened.load_collection(name)


def rows(first: int, count: int, *, dimension: int = DIMENSION) -> list[dict[str, Any]]:
    """Return rows that depend on their numbers only."""
    vectors = np.random.default_rng([7, first]).random((count, dimension), dtype=np.float32)
    return [
        {
            "id": n,
            "content": f'memory "{n}" of Zoë',
            "tags": [f"t{n % 3}"] * (n % 4),
            "numbers": [n / 7, -1e300],
            "metadata": {"topic": n % 17, "deep": {"list": [1, None, "x"]}},
            "score": n / 3,
            "exact": n / 3,
            "small": n % 100,
            "medium": n % 30_000,
            "plain": -n,
            "verified": n % 2 == 0,
            "embedding": vectors[n - first],
            "undeclared": n * 2,
            "also": {"nested": f"{n}"},
        }
        for n in range(first, first + count)
    ]


def add_rows(opened: Any, name: str, *, first: int, count: int, **words: Any) -> None:
    """Insert rows numbered from `first`."""
    for begin in range(first, first + count, 1000):
        piece = min(1000, first + count - begin)
        opened.insert(name, rows(begin, piece), **words)
