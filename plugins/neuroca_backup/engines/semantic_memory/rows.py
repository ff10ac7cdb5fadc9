"""The rows of a fetched backup, and what each says in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from neuroca_backup.vectors import columns, parts

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from neuroca_backup.engines import Restorable
    from neuroca_backup.vectors.model import Collection


def batches(
    backup: Restorable, collection: Collection, partitions: Sequence[str]
) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Yield all rows of a collection, each batch with its partition."""
    files: Path = backup.folders[-1]
    names = [member.name for member in backup.last.members]
    schema = columns.schema_of(collection)
    for partition in partitions:
        folder = parts.partition_folder(collection.at, collection, partition)
        members = parts.part_names(names, folder)
        for member, path in zip(members, parts.paths(files, members), strict=True):
            for batch in parts.read_file(path, member, schema):
                yield partition, batch


def items_of(collection: Collection, batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """Yield every row of a batch without its vectors; what no schema declares counts as fields."""
    scalars = tuple(field for field in collection.fields if not field.is_vector)
    plain = collection.model_copy(update={"fields": scalars})
    for row in columns.to_rows(plain, batch):
        yield {**_dynamic(row), **row}


def items(
    backup: Restorable, collection: Collection, partitions: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Yield every row of a collection, as `items_of` does."""
    for _, batch in batches(backup, collection, partitions):
        yield from items_of(collection, batch)


def _dynamic(row: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that no schema declares: stores keep them together in one of JSON."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        if name.startswith("$") and isinstance(value, dict):
            found |= value
    return found
