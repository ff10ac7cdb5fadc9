"""The catalog: an index of what the stores hold, and the history that no store keeps.

It is disposable: `catalog rebuild` makes it again from the stores. Nothing that decides whether a
backup exists or can be restored reads it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from pydantic import AwareDatetime, BaseModel, ConfigDict

from neuroca_backup.model.identity import Component
from neuroca_backup.model.manifest import Manifest
from neuroca_backup.model.status import Level, Verification


class CatalogEntry(BaseModel):
    """One backup as the catalog lists it; `levels` is the newest level in each store.

    `expired_at` is when retention marked it to be deleted, None where it has not.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backup_id: str
    set_id: str
    component: Component
    source: str
    engine: str
    kind: str
    started_at: AwareDatetime
    finished_at: AwareDatetime
    expires_at: AwareDatetime | None
    plain_size: int
    stored_size: int
    members: int
    levels: Mapping[str, Level]
    expired_at: AwareDatetime | None = None


class RestoreRecord(BaseModel):
    """One restore: what came from where, how long each step took (seconds), how it ended."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    restore_id: str
    backup_id: str
    store: str
    target: str
    actor: str
    started_at: AwareDatetime
    finished_at: AwareDatetime
    seconds: Mapping[str, float]
    bytes_restored: int
    outcome: str
    notes: tuple[str, ...] = ()


class AuditEvent(BaseModel):
    """Who did what to which backup, when."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: AwareDatetime
    actor: str
    action: str
    subject: str
    details: Mapping[str, Any] = {}


class Catalog(Protocol):
    """The index. Every method is safe to repeat: the same record twice is one record."""

    def prepare(self) -> None:
        """Create or migrate the schema."""
        ...

    def record_backup(self, manifest: Manifest, *, store: str) -> None:
        """Note that `store` holds this backup."""
        ...

    def forget_backup(self, backup_id: str) -> None:
        """Remove a backup that no store holds any more; its history stays."""
        ...

    def record_expiry(self, backup_id: str, at: datetime | None) -> None:
        """Note that a backup was marked at `at` (aware) to be deleted, or, with None, taken back.

        Of a backup that is not listed nothing is noted.
        """
        ...

    def record_stage(self, backup_id: str, stage: str, *, seconds: float, size: int) -> None:
        """Note how long a stage took and how many bytes it handled."""
        ...

    def record_verification(self, verification: Verification) -> None:
        """Note the result of a check; the newest one per store is the backup's level there."""
        ...

    def record_restore(self, record: RestoreRecord) -> None:
        """Note a restore, whatever its outcome."""
        ...

    def record_event(self, event: AuditEvent) -> None:
        """Append to the audit trail."""
        ...

    def backups(
        self, *, component: Component | None = None, source: str | None = None, limit: int = 100
    ) -> Sequence[CatalogEntry]:
        """Return backups, newest first."""
        ...

    def restores(self, *, limit: int = 100) -> Sequence[RestoreRecord]:
        """Return restores, newest first."""
        ...

    def events(self, *, limit: int = 100) -> Sequence[AuditEvent]:
        """Return the audit trail, newest first."""
        ...
