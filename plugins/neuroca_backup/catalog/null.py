"""Life without a catalog: what is written goes nowhere, what is read is empty."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from neuroca_backup.catalog import AuditEvent, CatalogEntry, RestoreRecord
from neuroca_backup.model.identity import Component
from neuroca_backup.model.manifest import Manifest
from neuroca_backup.model.status import Verification


class NullCatalog:
    """The catalog of an installation that has none; backups and restores do not need one."""

    def prepare(self) -> None:
        """Do nothing."""

    def record_backup(self, manifest: Manifest, *, store: str) -> None:
        """Do nothing."""

    def forget_backup(self, backup_id: str) -> None:
        """Do nothing."""

    def record_expiry(self, backup_id: str, at: datetime | None) -> None:
        """Do nothing."""

    def record_stage(self, backup_id: str, stage: str, *, seconds: float, size: int) -> None:
        """Do nothing."""

    def record_verification(self, verification: Verification) -> None:
        """Do nothing."""

    def record_restore(self, record: RestoreRecord) -> None:
        """Do nothing."""

    def record_event(self, event: AuditEvent) -> None:
        """Do nothing."""

    def backups(
        self,
        *,
        component: Component | None = None,  # noqa: ARG002 - the protocol's
        source: str | None = None,  # noqa: ARG002 - the protocol's
        limit: int = 100,  # noqa: ARG002 - the protocol's
    ) -> Sequence[CatalogEntry]:
        """Return nothing."""
        return ()

    def restores(self, *, limit: int = 100) -> Sequence[RestoreRecord]:  # noqa: ARG002 - as above
        """Return nothing."""
        return ()

    def events(self, *, limit: int = 100) -> Sequence[AuditEvent]:  # noqa: ARG002 - as above
        """Return nothing."""
        return ()
