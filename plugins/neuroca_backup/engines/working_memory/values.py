"""Which values a field has in the keys of a pattern."""

from __future__ import annotations

from collections.abc import Iterator

from neuroca_backup.engines import Restorable
from neuroca_backup.engines.working_memory import members
from neuroca_backup.engines.working_memory.selecting import document
from neuroca_backup.memory.references import values_of
from neuroca_backup.redis_patterns import matches


def values(backup: Restorable, *, place: str, field: str) -> Iterator[str]:
    """Yield the values of `field` of hashes, and of JSON texts, whose key matches `place`."""
    pattern = place.encode()
    for _, found in members.in_folder(backup.folders[-1], backup.last):
        for piece in found:
            if matches(pattern, piece.key):
                yield from values_of(document(piece), field)
