"""JSON Lines: one object a vector, the runbook's `vector_db_export` and `vector_db_import` format.

The first line may be a header that describes the collections, so that a file can be imported into
an empty store; every other line is one vector:

    {"neuroca_vectors": 1, "collections": {"neuroca_semantic": {...}}}
    {"collection": "neuroca_semantic", "id": 7, "values": [0.1, ...], "metadata": {"topic": 3}}

`values` are the numbers of the only vector field: floats, or the bytes of a binary or half-float
vector. A collection with several has `vectors` with a `values` of each instead, and a sparse vector
is {"indices": [...], "values": [...]}. `metadata` holds all other fields, dynamic ones among
them; `namespace` is the partition, if there are any.
"""

from __future__ import annotations

import gzip
import json
import os
import sys
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from neuroca_backup.errors import ConfigurationError, SpoolError
from neuroca_backup.vectors.model import Collection, Field

VERSION = 1
_MARK = "neuroca_vectors"
_LONGEST_LINE = 64 * 1024 * 1024
_KEYS = {"collection", "id", "values", "vectors", "metadata", "namespace"}
_LARGEST = (2 - 2**-23) * 2.0**127  # of float32
DYNAMIC = "$meta"

Row = dict[str, Any]


@contextmanager
def opened(path: Path, mode: str) -> Iterator[BinaryIO]:
    """Open a file of JSON Lines, `rb` or `xb` (mode 600); compressed if its name ends in .gz.

    Raises:
        ConfigurationError: It cannot be read, or exists already.
        SpoolError: It cannot be written to its end; it is removed.
    """
    writing = mode == "xb"
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL if writing else os.O_RDONLY
        raw = os.fdopen(os.open(path, flags, 0o600), "wb" if writing else "rb")
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be {'made' if writing else 'read'}: {error.strerror}",
            remedy="Name a new file in a folder that exists."
            if writing
            else "Name a file of JSON Lines.",
            value=str(path),
        ) from None
    try:
        with raw:
            if path.suffix != ".gz":
                yield raw
            else:
                with gzip.GzipFile(fileobj=raw, mode="wb" if writing else "rb", mtime=0) as packed:
                    yield cast("BinaryIO", packed)
    except (OSError, EOFError, zlib.error) as error:
        if not writing:
            raise ConfigurationError(
                f"{path} cannot be read to its end: {error}",
                remedy="Copy or export it again.",
                value=str(path),
            ) from None
        path.unlink(missing_ok=True)
        raise SpoolError(
            f"{path} cannot be written to its end: {error}",
            remedy="Free space, or name another file.",
            path=str(path),
        ) from None
    except BaseException:
        if writing:
            path.unlink(missing_ok=True)
        raise


def header(collections: Mapping[str, Collection]) -> bytes:
    """Return the first line."""
    described = {label: one.model_dump(mode="json") for label, one in collections.items()}
    return _line({_MARK: VERSION, "collections": described})


def line_of(collection: Collection, row: Row, *, partition: str) -> bytes:
    """Return the line of a row as `columns.to_rows` gives it."""
    vectors = {field.name: _numbers(field, row[field.name]) for field in collection.vectors}
    metadata = {
        field.name: row[field.name]
        for field in collection.fields
        if not field.is_vector and field.name not in {collection.key, DYNAMIC}
    }
    record: Row = {"collection": collection.at.label, "id": row[collection.key]}
    if len(vectors) == 1:
        record["values"] = next(iter(vectors.values()))
    else:
        record["vectors"] = vectors
    record["metadata"] = {**(row.get(DYNAMIC) or {}), **metadata}
    if partition:
        record["namespace"] = partition
    return _line(record)


class Reader:
    """The rows of a file, each line checked; errors name the file, the line and the remedy.

    `collections` are those that the lines belong to, by label: of the header, or else of the store.
    """

    def __init__(self, path: Path, collections: Mapping[str, Collection] | None = None) -> None:
        self._path = path
        self._given = collections
        self.collections: Mapping[str, Collection] = collections or self._described()

    def _described(self) -> Mapping[str, Collection]:
        """Return what the header describes, {} without one."""
        for _, record in self._records():
            if _MARK not in record:
                return {}
            if record[_MARK] != VERSION:
                raise self._wrong(
                    1, f"is of version {record[_MARK]!r}, this program reads {VERSION}"
                )
            try:
                return {
                    label: Collection.model_validate(one)
                    for label, one in record["collections"].items()
                }
            except (KeyError, AttributeError, ValueError):
                raise self._wrong(1, "does not describe collections") from None
        return {}

    def rows(self) -> Iterator[tuple[str, str, Row]]:
        """Yield the label of the collection, the partition and the row of each line.

        Raises:
            ConfigurationError: A line is not a vector of its collection.
        """
        for number, record in self._records():
            if number == 1 and _MARK in record:
                continue
            unknown = sorted(record.keys() - _KEYS)
            if unknown:
                raise self._wrong(number, f"has unknown keys: {', '.join(unknown)}")
            label = record.get("collection")
            if label is None and len(self.collections) == 1:
                label = next(iter(self.collections))
            if not isinstance(label, str) or label not in self.collections:
                known = ", ".join(self.collections) or "none"
                raise self._wrong(number, f"is of the collection {label!r}; there is {known}")
            partition = record.get("namespace") or ""
            collection = self.collections[label]
            if partition not in (*collection.partitions, ""):
                raise self._wrong(
                    number, f"is of the namespace {partition!r}, {label} has none such"
                )
            yield label, partition, self._row(number, collection, record)

    def _records(self) -> Iterator[tuple[int, Row]]:
        with opened(self._path, "rb") as file:
            number = 0
            while line := file.readline(_LONGEST_LINE):
                number += 1
                if not line.strip():
                    continue
                try:
                    record = json.loads(line, parse_constant=_refuse)
                except (ValueError, RecursionError):
                    raise self._wrong(number, "is not JSON") from None
                if not isinstance(record, dict):
                    raise self._wrong(number, "is not an object")
                yield number, record

    def _row(self, number: int, collection: Collection, record: Row) -> Row:
        key = collection.field(collection.key)
        value = record.get("id")
        if collection.new_keys and value is None:
            value = 0 if key.kind == "int64" else ""
        if not _fits(key.kind, key, value):
            raise self._wrong(number, f"has the id {str(value)[:60]!r}, which is no {key.kind}")
        row: Row = {key.name: value}
        vectors = record.get("vectors")
        if vectors is None:
            if len(collection.vectors) != 1:
                names = ", ".join(field.name for field in collection.vectors)
                raise self._wrong(number, f"has no `vectors`; {collection.name} has {names}")
            vectors = {collection.vectors[0].name: record.get("values")}
        if not isinstance(vectors, dict):
            raise self._wrong(number, "has `vectors` that are no object")
        for field in collection.vectors:
            row[field.name] = self._vector(number, field, vectors.get(field.name))
        metadata = record.get("metadata") or {}
        if not isinstance(metadata, dict):
            raise self._wrong(number, "has `metadata` that is no object")
        return row | self._metadata(number, collection, metadata)

    def _metadata(self, number: int, collection: Collection, metadata: Row) -> Row:
        row: Row = {}
        declared = {
            field.name: field
            for field in collection.fields
            if not field.is_vector and field.name not in {collection.key, DYNAMIC}
        }
        for name, field in declared.items():
            value = metadata.get(name)
            if value is None and not field.nullable and field.kind != "json":
                raise self._wrong(number, f"lacks {name} in its metadata")
            if value is not None and not _fits(field.kind, field, value):
                raise self._wrong(number, f"has {name} = {str(value)[:60]!r}, not {field.kind}")
            row[name] = value
        extra = {name: value for name, value in metadata.items() if name not in declared}
        taken = sorted(extra.keys() & {field.name for field in collection.fields})
        if taken:
            raise self._wrong(number, f"has {', '.join(taken)} in its metadata, a field of its own")
        if any(field.name == DYNAMIC for field in collection.fields):
            row[DYNAMIC] = extra
        elif extra:
            raise self._wrong(
                number, f"has {', '.join(sorted(extra))}, for which {collection.name} has no field"
            )
        return row

    def _vector(self, number: int, field: Field, value: Any) -> Any:
        if value is None and field.nullable:
            return None
        if field.kind == "sparse_vector":
            try:
                pairs = dict(zip(value["indices"], value["values"], strict=True))
            except (KeyError, TypeError, ValueError):
                raise self._wrong(number, f"has no sparse vector {field.name}") from None
            return pairs
        if not isinstance(value, list) or not all(_is_number(one, _LARGEST) for one in value):
            raise self._wrong(number, f"has no vector {field.name} of finite numbers")
        expected = width(field)
        if len(value) != expected:
            raise self._wrong(
                number,
                f"has a vector {field.name} of {len(value)} numbers, the collection's have "
                f"{expected}",
            )
        if field.kind == "float_vector":
            return value
        try:
            return bytes(value)
        except (TypeError, ValueError):
            raise self._wrong(number, f"has bytes in {field.name} that are not 0 to 255") from None

    def _wrong(self, number: int, what: str) -> ConfigurationError:
        return ConfigurationError(
            f"{self._path}, line {number} {what}",
            remedy="Correct the file, or export it again; nothing was imported.",
            file=str(self._path),
            line=number,
        )


def width(field: Field) -> int:
    """Return how many numbers a dense vector has in a line: its dimension, or its bytes."""
    widths = {"binary_vector": field.dimension // 8}
    widths |= dict.fromkeys(("float16_vector", "bfloat16_vector"), field.dimension * 2)
    return widths.get(field.kind, field.dimension)


def _numbers(field: Field, value: Any) -> Any:
    if value is None:
        return None
    if field.kind == "sparse_vector":
        return {"indices": list(value), "values": list(value.values())}
    return list(value) if isinstance(value, bytes) else value.tolist()


def _is_number(value: Any, largest: float) -> bool:
    # A comparison with what is not a number is false.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= largest


def _fits(kind: str, field: Field, value: Any) -> bool:
    if kind == "json":
        return True
    if kind == "array":
        element = field.element or "string"
        return isinstance(value, list) and all(_fits(element, field, one) for one in value)
    if kind == "bool":
        return isinstance(value, bool)
    if kind == "string":
        return isinstance(value, str)
    if kind in {"float", "double"}:
        return _is_number(value, _LARGEST if kind == "float" else sys.float_info.max)
    bits = int(kind.removeprefix("int"))
    whole = isinstance(value, int) and not isinstance(value, bool)
    return whole and -(2 ** (bits - 1)) <= value < 2 ** (bits - 1)


def _refuse(word: str) -> Any:
    raise ValueError(word)


def _line(record: Row) -> bytes:
    return json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
