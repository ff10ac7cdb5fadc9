"""Which backups go to the tertiary store; pure: nothing here does I/O."""

from __future__ import annotations

from collections.abc import Iterable

from neuroca_backup.model.identity import BackupRef
from neuroca_backup.model.manifest import Manifest
from neuroca_backup.settings import Copying

# The store that may be cold: it gets chosen backups, and may keep them for longer.
TERTIARY = "tertiary"


def wanted(manifest: Manifest, standing: Iterable[BackupRef], *, how: Copying) -> bool:
    """Return whether the backup of `manifest` is one of those to be copied.

    `standing` are the backups of its source that the tertiary store has. One that was due and was
    not copied leaves its turn to the next. What was saved before a restore may be the very state
    that somebody wanted to be rid of, so it is copied only where all are.
    """
    if how is Copying.ALL:
        return True
    if how is Copying.NONE or manifest.before_restore:
        return False
    period = _period(manifest.ref, how)
    return all(other == manifest.ref or _period(other, how) != period for other in standing)


def _period(ref: BackupRef, how: Copying) -> tuple[int, int]:
    time = ref.time
    return (time.year, time.month) if how is Copying.MONTHLY else time.isocalendar()[:2]
