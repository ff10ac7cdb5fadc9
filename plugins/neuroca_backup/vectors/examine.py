"""Questions asked of a vector store: does every collection answer a search, and how quickly?"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from neuroca_backup.errors import BackupError
from neuroca_backup.vectors.database import VectorDatabase
from neuroca_backup.vectors.model import Field, Name

# A question, the seconds it took, what is wrong.
Asked = tuple[str, float, tuple[str, ...]]
_NEIGHBOURS = 10


def examine(
    database: VectorDatabase, facts: Mapping[str, Any], *, only: Sequence[str] = ()
) -> Iterator[Asked]:
    """Search every collection that `facts` name by each of its vectors."""
    there = database.collections()
    for label, known in facts["collections"].items():
        name = label.rpartition(".")[2]
        if only and label not in only and name not in only:
            continue
        found = next((at for at in there if label in {at.label, at.collection}), None)
        # A connection that names a database calls its collections by their names alone.
        at = found or next((at for at in there if at.label == name), None)
        if at is None:
            yield f"{label}: it is there", 0.0, ("there is no such collection",)
            continue
        yield from _searched(database, at, label, held=known["count"])


def _searched(database: VectorDatabase, at: Name, label: str, *, held: int) -> Iterator[Asked]:
    collection = database.describe(at)
    for field in collection.vectors:
        if field.kind == "sparse_vector":
            continue  # it has no dimension, so nothing is near to just any vector
        begun = time.monotonic()
        problems: tuple[str, ...] = ()
        try:
            with database.reading(at):
                keys = database.nearest(
                    at,
                    collection,
                    _anywhere(field),
                    field=field.name,
                    partition=collection.partitions[0],
                    limit=_NEIGHBOURS,
                )
            if not keys and held:
                problems = (f"nothing was found among {held:,} vectors",)
        except BackupError as error:
            problems = (f"it does not answer: {error.problem}",)
        took = round(time.monotonic() - begun, 4)
        yield f"{label}: a search by {field.name} answers", took, problems


def _anywhere(field: Field) -> Any:
    """Return the same vector of the field's dimension every time, near to none in particular."""
    generator = np.random.default_rng(1)
    if field.kind == "binary_vector":
        return generator.integers(0, 256, field.dimension // 8, dtype=np.uint8)
    return generator.normal(size=field.dimension).astype(np.float32)
