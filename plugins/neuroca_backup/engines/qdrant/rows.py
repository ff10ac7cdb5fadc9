"""Points as rows, and rows as points."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from neuroca_backup.engines.qdrant import schema
from neuroca_backup.vectors import columns
from neuroca_backup.vectors.model import Collection, Field

if TYPE_CHECKING:
    import pyarrow as pa


def key_of(point_id: object) -> str:
    """Return a point's id as text; a collection may have numbers and UUIDs side by side."""
    return str(point_id)


def id_of(key: str) -> int | str:
    """Return the id of which `key` is the text; a UUID is never all digits."""
    return int(key) if key.isdecimal() else key


def batch_of(collection: Collection, records: Sequence[Any]) -> pa.RecordBatch:
    """Return records of the client as a batch."""
    return columns.from_rows(collection, [_row(collection, record) for record in records])


def _row(collection: Collection, record: Any) -> dict[str, Any]:
    given = record.vector
    vectors: Mapping[str, Any] = given if isinstance(given, dict) else {"": given}
    row: dict[str, Any] = {schema.KEY: key_of(record.id), schema.PAYLOAD: record.payload or None}
    for name, field in schema.named_fields(collection):
        values = vectors.get(name)
        if values is None:
            continue
        if field.kind == "sparse_vector":
            row[field.name] = dict(zip(values.indices, values.values, strict=True))
        elif field.kind == "array":
            row[field.name] = np.asarray(values, np.float32).ravel()
        else:
            row[field.name] = values
    return row


def points_of(collection: Collection, batch: pa.RecordBatch) -> Iterator[Any]:
    """Yield the points of a batch as the client takes them."""
    from qdrant_client import models  # noqa: PLC0415 - an optional package

    named = list(schema.named_fields(collection))
    for row in columns.to_rows(collection, batch):
        vectors = {
            name: _vector(models, field, row[field.name])
            for name, field in named
            if row[field.name] is not None
        }
        yield models.PointStruct.model_construct(
            id=id_of(row[schema.KEY]),
            vector=vectors[""] if list(vectors) == [""] else vectors,
            payload=row[schema.PAYLOAD],
        )


def _vector(models: Any, field: Field, values: Any) -> Any:
    if field.kind == "sparse_vector":
        return models.SparseVector(indices=list(values), values=list(values.values()))
    if field.kind == "array":
        return np.asarray(values, np.float32).reshape(-1, field.dimension).tolist()
    return np.asarray(values, np.float32).tolist()
