"""Whether a backup may be erased on demand: what keeps it, and what has to go before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from neuroca_backup.errors import NotFoundError, TargetRefusedError
from neuroca_backup.model.identity import BackupRef
from neuroca_backup.services import needs
from neuroca_backup.services.retention.planning import Record
from neuroca_backup.stores import Locking, Store


def require_free(
    stores: Mapping[str, Store], ref: BackupRef, records: Sequence[Record], *, now: datetime
) -> Record:
    """Return the record of `ref`, which nothing keeps.

    Args:
        stores: Every store, which may lock what it holds.
        ref: The backup to be erased.
        records: All backups of its source, from every store.
        now: The time (aware).

    Raises:
        NotFoundError: It is none of `records`.
        TargetRefusedError: It is held, locked or needed; says by what, and what to do.
    """
    record = next((one for one in records if one.ref == ref), None)
    if record is None:
        raise NotFoundError(
            f"There is no backup {ref.backup_id}",
            remedy="`neuroca-backup list` shows what there is.",
            backup_id=ref.backup_id,
        )
    held = next((one for one in record.holds if one.stands(now)), None)
    if held is not None:
        raise _refused(
            ref,
            f"it is on hold by {held.actor}: {held.reason}",
            f"If that is settled, run `neuroca-backup hold release {ref.backup_id}` first.",
        )
    if record.pinned:
        raise _refused(ref, "its manifest says that it is on hold", "It was made to stay.")
    for name in sorted(record.stores):
        store = stores[name]
        until = store.locked_until(ref.manifest_key) if isinstance(store, Locking) else None
        if until is not None and until > now:
            raise _refused(
                ref,
                f"it is locked in {name} until {until.isoformat(timespec='seconds')}",
                "The store itself deletes nothing before that. Shorten the lock if it lets you, "
                "or schedule the key's deletion in KMS.",
            )
    named = {one.backup_id: one.names for one in records if not one.erasing}
    needing = sorted(needs.transitively(named).get(ref.backup_id, frozenset()), reverse=True)
    if needing:
        raise _refused(
            ref,
            f"{len(needing)} younger backups need it: {', '.join(needing[:5])}",
            "Erase those first, the youngest first; or take a new full backup, and let them "
            "expire.",
        )
    return record


def _refused(ref: BackupRef, why: str, remedy: str) -> TargetRefusedError:
    return TargetRefusedError(
        f"{ref.backup_id} is not erased: {why}", remedy=remedy, backup_id=ref.backup_id
    )
