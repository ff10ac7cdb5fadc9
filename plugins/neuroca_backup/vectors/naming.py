"""Names that a restore gives: of a copy that is being loaded, of what a copy has replaced."""

from __future__ import annotations

import hashlib
import re

from neuroca_backup.vectors.model import Name

STAGING = re.compile(r"restoring_[0-9a-f]{12}")
# What Milvus takes; no other store takes less.
_LONGEST = 200


def mark(backup_id: str, at: Name) -> str:
    """Return a word for the restore of one collection of one backup; the same each time."""
    return hashlib.sha256(f"{backup_id}/{at.label}".encode()).hexdigest()[:12]


def staging(backup_id: str, at: Name, place: Name) -> Name:
    """Return under which name beside `place` the copy of `at` is loaded."""
    return place._replace(collection=f"restoring_{mark(backup_id, at)}")


def kept(backup_id: str, at: Name, place: Name, present: set[Name]) -> Name:
    """Return a free name for what is replaced: the same backup may be restored again and again."""
    base = f"{place.collection[:_LONGEST]}_before_{mark(backup_id, at)}"
    names = (base, *(f"{base}_{number}" for number in range(2, 1000)))
    free = (place._replace(collection=name) for name in names)
    return next(name for name in free if name not in present)
