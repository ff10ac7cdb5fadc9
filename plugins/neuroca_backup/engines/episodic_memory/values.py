"""Which values a field has in the documents of a collection."""

from __future__ import annotations

from collections.abc import Iterator

from neuroca_backup.engines import Restorable
from neuroca_backup.engines.episodic_memory import members
from neuroca_backup.engines.episodic_memory.definitions import VIEW
from neuroca_backup.memory.references import absent, values_of


def values(backup: Restorable, *, place: str, field: str) -> Iterator[str]:
    """Yield the values of `field` of every document of `place`, `collection` or with database."""
    known = [one for one in members.known(backup.last).values() if one.kind != VIEW]
    named = [one.namespace for one in known if place in (one.namespace, one.name)]
    if not named:
        raise absent(place, [one.namespace for one in known], backup_id=backup.last.backup_id)
    for namespace in named:
        with members.in_folder(backup.folders[-1], namespace) as documents:
            for _, document in documents:
                yield from values_of(document, field)
