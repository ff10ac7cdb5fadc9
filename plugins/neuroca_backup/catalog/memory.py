"""The catalog in this process's memory: a fake for tests, held to the same contract."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from neuroca_backup.catalog import AuditEvent, CatalogEntry, RestoreRecord
from neuroca_backup.model.identity import Component
from neuroca_backup.model.manifest import Manifest
from neuroca_backup.model.status import Level, Verification


class MemoryCatalog:
    """A catalog that is gone when its process ends."""

    def __init__(self) -> None:
        self.stages: dict[tuple[str, str], tuple[float, int]] = {}
        self.verifications: dict[tuple[str, str, datetime], Verification] = {}
        self._backups: dict[str, Manifest] = {}
        self._expired: dict[str, datetime] = {}
        self._copies: dict[tuple[str, str], Verification | None] = {}
        self._restores: dict[str, RestoreRecord] = {}
        self._events: list[AuditEvent] = []

    def prepare(self) -> None:
        """Do nothing: there is no schema."""

    def record_backup(self, manifest: Manifest, *, store: str) -> None:
        """Note that `store` holds this backup."""
        self._backups[manifest.backup_id] = manifest
        self._copies.setdefault((manifest.backup_id, store), None)

    def forget_backup(self, backup_id: str) -> None:
        """Remove a backup that no store holds any more; its history stays."""
        self._backups.pop(backup_id, None)
        self._expired.pop(backup_id, None)
        self._copies = {key: value for key, value in self._copies.items() if key[0] != backup_id}

    def record_expiry(self, backup_id: str, at: datetime | None) -> None:
        """Note that a backup was marked to be deleted, or (None) taken back."""
        if at is None:
            self._expired.pop(backup_id, None)
        elif backup_id in self._backups:
            self._expired[backup_id] = at

    def record_stage(self, backup_id: str, stage: str, *, seconds: float, size: int) -> None:
        """Note how long a stage took (seconds) and how many bytes it handled."""
        self.stages[backup_id, stage] = (seconds, size)

    def record_verification(self, verification: Verification) -> None:
        """Note the result of a check; the newest one per store is the backup's level there."""
        copy = verification.backup_id, verification.store
        self.verifications.setdefault((*copy, verification.checked_at), verification)
        newest = self._copies.get(copy)
        if newest is None or newest.checked_at < verification.checked_at:
            self._copies[copy] = verification

    def record_restore(self, record: RestoreRecord) -> None:
        """Note a restore, whatever its outcome."""
        self._restores[record.restore_id] = record

    def record_event(self, event: AuditEvent) -> None:
        """Append to the audit trail."""
        if event not in self._events:
            self._events.append(event)

    def backups(
        self, *, component: Component | None = None, source: str | None = None, limit: int = 100
    ) -> Sequence[CatalogEntry]:
        """Return backups, newest first."""
        chosen = [
            manifest
            for manifest in self._backups.values()
            if component in (None, manifest.component) and source in (None, manifest.source)
        ]
        chosen.sort(key=lambda manifest: (manifest.started_at, manifest.backup_id), reverse=True)
        return [self._entry(manifest) for manifest in chosen[:limit]]

    def restores(self, *, limit: int = 100) -> Sequence[RestoreRecord]:
        """Return restores, newest first."""
        return sorted(
            self._restores.values(),
            key=lambda record: (record.started_at, record.restore_id),
            reverse=True,
        )[:limit]

    def events(self, *, limit: int = 100) -> Sequence[AuditEvent]:
        """Return the audit trail, newest first; of one instant, the last recorded first."""
        numbered = sorted(
            enumerate(self._events), key=lambda pair: (pair[1].at, pair[0]), reverse=True
        )
        return [event for _, event in numbered[:limit]]

    def _entry(self, manifest: Manifest) -> CatalogEntry:
        return CatalogEntry(
            backup_id=manifest.backup_id,
            set_id=manifest.set_id,
            component=manifest.component,
            source=manifest.source,
            engine=manifest.engine,
            kind=manifest.kind,
            started_at=manifest.started_at,
            finished_at=manifest.finished_at,
            expires_at=manifest.expires_at,
            plain_size=manifest.plain_size,
            stored_size=manifest.stored_size,
            members=len(manifest.members),
            expired_at=self._expired.get(manifest.backup_id),
            levels={
                store: _level(newest)
                for (backup_id, store), newest in self._copies.items()
                if backup_id == manifest.backup_id
            },
        )


def _level(newest: Verification | None) -> Level:
    """Return what a copy counts as; a damaged one counts as nothing."""
    return Level.NONE if newest is None or newest.findings else newest.level
