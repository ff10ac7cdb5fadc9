"""Rows as Arrow columns: the types of a collection's fields, and ways from and to Python rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from neuroca_backup.vectors.model import Collection, Field

_SCALARS = {
    "bool": pa.bool_(),
    "int8": pa.int8(),
    "int16": pa.int16(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "string": pa.string(),
    # Text: two stores need not agree on types within a document, and no number loses a digit.
    "json": pa.string(),
}
_SPARSE = pa.list_(pa.struct([("index", pa.uint32()), ("value", pa.float32())]))
# Bytes that one dimension takes.
_WIDTHS = {"float16_vector": 2, "bfloat16_vector": 2, "int8_vector": 1}


def type_of(field: Field) -> pa.DataType:
    """Return the Arrow type of a field's values.

    Vectors of float32 are fixed-size lists, other dense ones lists of their bytes (little-endian),
    sparse ones lists of (index, value).
    """
    if field.kind == "array":
        return pa.list_(_SCALARS[field.element or "string"])
    if field.kind == "float_vector":
        return pa.list_(pa.float32(), field.dimension)
    if field.kind == "binary_vector":
        return pa.list_(pa.uint8(), field.dimension // 8)
    if field.kind == "sparse_vector":
        return _SPARSE
    if field.kind in _WIDTHS:
        return pa.list_(pa.uint8(), field.dimension * _WIDTHS[field.kind])
    return _SCALARS[field.kind]


def schema_of(collection: Collection) -> pa.Schema:
    """Return the Arrow schema of a collection's rows, fields in their order."""
    return pa.schema(
        [
            pa.field(field.name, type_of(field), nullable=field.nullable)
            for field in collection.fields
        ]
    )


def from_rows(collection: Collection, rows: Sequence[Mapping[str, Any]]) -> pa.RecordBatch:
    """Return rows as a batch.

    Values are Python's own: JSON fields as what they mean (a text is a JSON string), float vectors
    as sequences or NumPy arrays, other dense ones as their bytes, sparse ones as {index: value}.
    A missing key is null.
    """
    arrays = [_array(field, [row.get(field.name) for row in rows]) for field in collection.fields]
    return pa.RecordBatch.from_arrays(arrays, schema=schema_of(collection))


def to_rows(collection: Collection, batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """Yield a batch's rows: JSON fields parsed, float vectors as NumPy arrays, others as bytes."""
    columns = [
        (field.name, _values(field, batch.column(batch.schema.get_field_index(field.name))))
        for field in collection.fields
    ]
    for index in range(batch.num_rows):
        yield {name: values[index] for name, values in columns}


def vectors_of(batch: pa.RecordBatch, field: Field) -> np.ndarray[Any, Any]:
    """Return the vectors of a dense field: float32 [rows, dimension], or uint8 [rows, bytes].

    Nulls are rows of NaN, or of zero bytes.
    """
    return _matrix(batch.column(batch.schema.get_field_index(field.name)))


def keys_of(batch: pa.RecordBatch, collection: Collection) -> list[Any]:
    """Return the primary keys of a batch."""
    keys: list[Any] = batch.column(batch.schema.get_field_index(collection.key)).to_pylist()
    return keys


def digest(collection: Collection, batch: pa.RecordBatch, index: int) -> str:
    """Return the SHA-256 (hex) of one row, bit for bit; without its key if that is the server's.

    JSON is compared by what it means, so its text is brought into one form first.
    """
    total = hashlib.sha256()
    for field in collection.fields:
        if collection.new_keys and field.name == collection.key:
            continue
        value = batch.column(batch.schema.get_field_index(field.name))[index]
        total.update(f"\0{field.name}\0".encode())
        total.update(_bits(field, value))
    return total.hexdigest()


def json_text(value: Any) -> str:
    """Return JSON text in one form: sorted keys, no spaces, no escapes but the needed ones."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _bits(field: Field, value: Any) -> bytes:
    if not value.is_valid:
        return b"null"
    if pa.types.is_fixed_size_list(value.type):
        bits: bytes = value.values.to_numpy(zero_copy_only=False).tobytes()
        return bits
    plain = value.as_py()
    if field.kind == "json":
        return json_text(json.loads(plain)).encode()
    if field.kind == "sparse_vector":
        plain = sorted((one["index"], one["value"]) for one in plain)
    if isinstance(plain, str):
        return plain.encode()
    return repr(plain).encode()


def _array(field: Field, values: list[Any]) -> pa.Array:
    kind = type_of(field)
    if pa.types.is_fixed_size_list(kind):
        return _vectors(field, kind, values)
    if field.kind == "json":
        values = [None if one is None and field.nullable else json_text(one) for one in values]
    elif field.kind == "sparse_vector":
        values = [
            None if one is None else [{"index": i, "value": v} for i, v in sorted(one.items())]
            for one in values
        ]
    elif field.kind == "array":
        values = [None if one is None else list(one) for one in values]
    return pa.array(values, type=kind)


def _vectors(field: Field, kind: pa.DataType, values: list[Any]) -> pa.Array:
    absent = np.array([one is None for one in values], dtype=bool)
    width = kind.list_size
    dtype = np.float32 if field.kind == "float_vector" else np.uint8
    matrix = np.zeros((len(values), width), dtype)
    for index, value in enumerate(values):
        if value is None:
            continue
        one = np.frombuffer(value, np.uint8) if isinstance(value, bytes) else value
        if len(one) != width:
            raise ValueError(f"{field.name} of row {index} has {len(one)} of {width} elements")
        matrix[index] = one
    mask = pa.array(absent) if absent.any() else None
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), type=kind, mask=mask)


def _matrix(column: pa.Array) -> np.ndarray[Any, Any]:
    width = column.type.list_size
    if column.null_count == 0:
        flat: np.ndarray[Any, Any] = column.flatten().to_numpy(zero_copy_only=False)
        return flat.reshape(len(column), width)
    floating = pa.types.is_floating(column.type.value_type)
    matrix = np.full((len(column), width), np.nan if floating else 0, "f4" if floating else "u1")
    for index, value in enumerate(column):
        if value.is_valid:
            matrix[index] = value.values.to_numpy(zero_copy_only=False)
    return matrix


def _values(field: Field, column: pa.Array) -> Sequence[Any]:
    if pa.types.is_fixed_size_list(column.type):
        rows = [one if field.kind == "float_vector" else one.tobytes() for one in _matrix(column)]
        if column.null_count:
            valid = column.is_valid().to_pylist()
            return [one if there else None for one, there in zip(rows, valid, strict=True)]
        return rows
    plain: list[Any] = column.to_pylist()
    if field.kind == "json":
        return [None if one is None else json.loads(one) for one in plain]
    if field.kind == "sparse_vector":
        return [None if v is None else {one["index"]: one["value"] for one in v} for v in plain]
    return plain
