"""Vectors as rows, and rows as vectors, in requests that the service takes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus

import numpy as np

from neuroca_backup.engines.pinecone.schema import KEY, METADATA, SPARSE, VALUES
from neuroca_backup.vectors import columns
from neuroca_backup.vectors.model import Collection

if TYPE_CHECKING:
    import pyarrow as pa

# https://docs.pinecone.io/reference/api/database-limits: 1,000 vectors and 2 MB a request. A
# 32-bit number that became a 64-bit one takes up to 23 characters.
_UPSERT_VECTORS, _UPSERT_BYTES = 1000, 1_900_000
_NUMBER_BYTES, _SPARSE_BYTES, _VECTOR_BYTES = 23, 35, 120
# Ids are part of an address; what lies between may take addresses of 8 KB only.
_URL_CHARACTERS, _FETCHED = 6000, 100


def row_of(vector: Any) -> dict[str, Any]:
    """Return a vector of the client as a row."""
    sparse = vector.sparse_values
    return {
        KEY: vector.id,
        VALUES: np.asarray(vector.values, np.float32) if vector.values else None,
        SPARSE: dict(zip(sparse.indices, sparse.values, strict=True)) if sparse else None,
        METADATA: vector.metadata or None,
    }


def size_of(row: Mapping[str, Any]) -> int:
    """Return about how many bytes a row takes in a batch."""
    dense = 0 if row[VALUES] is None else row[VALUES].nbytes
    metadata = 0 if row[METADATA] is None else len(json.dumps(row[METADATA]))
    return len(row[KEY]) + dense + 8 * len(row[SPARSE] or ()) + metadata


def upserts(collection: Collection, batch: pa.RecordBatch) -> Iterator[list[dict[str, Any]]]:
    """Yield the vectors of a batch as the bodies of requests, none of them too large."""
    body: list[dict[str, Any]] = []
    size = 0
    for row in columns.to_rows(collection, batch):
        vector, taken = _vector(row)
        if body and (len(body) == _UPSERT_VECTORS or size + taken > _UPSERT_BYTES):
            yield body
            body, size = [], 0
        body.append(vector)
        size += taken
    if body:
        yield body


def _vector(row: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    vector: dict[str, Any] = {"id": row[KEY]}
    size = _VECTOR_BYTES + len(row[KEY])
    if row.get(VALUES) is not None:
        vector["values"] = np.asarray(row[VALUES], np.float32).tolist()
        size += _NUMBER_BYTES * len(vector["values"])
    if row.get(SPARSE) is not None:
        sparse = row[SPARSE]
        vector["sparse_values"] = {"indices": list(sparse), "values": list(sparse.values())}
        size += _SPARSE_BYTES * len(sparse)
    if row[METADATA]:
        vector["metadata"] = row[METADATA]
        size += len(json.dumps(row[METADATA], ensure_ascii=False).encode())
    return vector, size


def fetches(ids: Sequence[str]) -> Iterator[list[str]]:
    """Yield ids in lists that one request for their vectors can name."""
    asked: list[str] = []
    length = 0
    for one in ids:
        taken = len(quote_plus(one)) + len("&ids=")
        if asked and (len(asked) == _FETCHED or length + taken > _URL_CHARACTERS):
            yield asked
            asked, length = [], 0
        asked.append(one)
        length += taken
    if asked:
        yield asked
