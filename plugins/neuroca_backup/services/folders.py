"""The folders of a store that hold no backups, and how their objects are told from strangers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from neuroca_backup.model import audit, backup_set, erasure, recovery, restore_test
from neuroca_backup.services.objectives import telling

# What is in none of these is a backup's, or was put there by somebody else.
FOLDERS: Mapping[str, Callable[[str], bool]] = {
    backup_set.PREFIX: backup_set.is_set_key,
    recovery.PREFIX: recovery.is_recovery_key,
    restore_test.PREFIX: restore_test.is_restore_test_key,
    audit.PREFIX: lambda key: audit.sequence_of(key) is not None,
    erasure.PREFIX: erasure.is_erasure_key,
    telling.FOLDER: lambda key: key == telling.KEY,
}


def folder_of(key: str) -> str:
    """Return which of `FOLDERS` the object `key` belongs into, "" for none."""
    first = key.partition("/")[0]
    known = FOLDERS.get(first)
    return first if known is not None and known(key) else ""
