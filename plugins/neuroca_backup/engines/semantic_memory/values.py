"""Which values a field has in the rows of a collection."""

from __future__ import annotations

from collections.abc import Iterator

from neuroca_backup.engines import Restorable
from neuroca_backup.engines.semantic_memory.rows import items
from neuroca_backup.memory.references import absent, values_of
from neuroca_backup.vectors.model import Collection


def values(backup: Restorable, *, place: str, field: str) -> Iterator[str]:
    """Yield the values of `field` of every row of `place`, `collection` or with its database."""
    known = {}
    for one in backup.last.dump.facts["collections"].values():
        collection = Collection.model_validate(one["schema"])
        known[collection.at.label] = (collection, tuple(one["partitions"]))
    named = [one for one in known.values() if place in (one[0].at.label, one[0].name)]
    if not named:
        raise absent(place, list(known), backup_id=backup.last.backup_id)
    for collection, partitions in named:
        for item in items(backup, collection, partitions):
            yield from values_of(item, field)
