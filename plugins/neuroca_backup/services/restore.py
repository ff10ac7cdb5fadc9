"""Restoring: plan, preflight, fetch, load, compare, publish, record.

Nothing touches the target before every byte has passed its digests and its authentication; the
nearest copy that does is used, and the report says which and why. Every step may be repeated.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from pydantic import ValidationError

from neuroca_backup.catalog import AuditEvent, Catalog, RestoreRecord
from neuroca_backup.engines import Engine, RestoreTarget
from neuroca_backup.errors import BackupError, ComparisonError, NotFoundError, SpoolError
from neuroca_backup.keyring.keys_document import Keyring
from neuroca_backup.model import document
from neuroca_backup.model.identity import Component
from neuroca_backup.model.manifest import Manifest, SealedManifest
from neuroca_backup.model.tickets import FetchReport, RestorePlan, Ticket
from neuroca_backup.services import pipeline
from neuroca_backup.services.fetch import Fetching, no_copy
from neuroca_backup.services.inventory import Inventory, read_manifest
from neuroca_backup.services.ledger import Ledger
from neuroca_backup.spool import Folder, Spool, StageRecord
from neuroca_backup.stores import Store

log = logging.getLogger(__name__)

_MANIFEST = "manifest.json"


class Restores:
    """The steps of a restore as methods; plans and reports carry ids and sizes only.

    Args:
        engine: Resolves the engine that a manifest names.
        stores: All stores by name, the nearest first.
        keyring: Who can unwrap keys.
        catalog: Where restores are noted.
        spool: Where fetched members lie, in clear, until they are loaded.
        workers: Members fetched at once.
    """

    def __init__(
        self,
        *,
        engine: Callable[[str], Engine],
        stores: Mapping[str, Store],
        keyring: Keyring,
        catalog: Catalog,
        spool: Spool,
        workers: int,
    ) -> None:
        self._engine = engine
        self._stores = stores
        self._keyring = keyring
        self._ledger = Ledger(catalog)
        self._spool = spool
        self._workers = workers

    def plan(
        self,
        *,
        component: Component,
        source: str,
        restore_id: str,
        backup_id: str | None = None,
        before: datetime | None = None,
        prefer: str | None = None,
    ) -> RestorePlan:
        """Choose the backup: by id, or the newest verified one, or the newest before a time.

        Raises:
            NotFoundError: There is no such backup in any store that answers.
        """
        stores = self._order(prefer)
        inventory = Inventory(stores)
        found = inventory.find(source, component=component, backup_id=backup_id, before=before)
        manifest = next(iter(found.manifests.values()))
        return RestorePlan(
            restore_id=restore_id,
            backup_id=found.ref.backup_id,
            component=component.value,
            source=source,
            engine=manifest.engine,
            # Each later step asks in this order: a dead store first would cost its timeouts again.
            stores=tuple(sorted(stores, key=lambda name: name in inventory.unreachable)),
            plain_size=manifest.plain_size,
            members=len(manifest.members),
            taken_at=manifest.started_at.isoformat(),
            verified=found.verified,
        )

    def preflight(self, plan: RestorePlan, target: RestoreTarget) -> tuple[str, ...]:
        """Refuse before anything is touched: no space, versions, a target that holds data."""
        self._spool.require_free(plan.plain_size)
        manifest = self._manifest(plan).manifest
        return tuple(self._engine(plan.engine).preflight(manifest, target))

    def fetch(self, plan: RestorePlan) -> FetchReport:
        """Fetch, unseal and decompress every member into the spool, from the nearest good copy.

        Raises:
            DamagedError: No store has a good copy of some member; lists what each one answered.
            KeyUnavailableError: No recipient could unwrap the keyset.
        """
        begun = time.monotonic()
        fetching = Fetching(self._spool, plan, self._keyring, self._stores)
        folder = self._spool.claim(plan.restore_id, "fetch")
        started = datetime.now(UTC)
        manifest = fetching.open()
        (folder.path / _MANIFEST).write_bytes(document.encode(manifest.model_dump(mode="json")))
        members = pipeline.in_parallel(
            lambda member: fetching.member(member, folder),
            sorted(manifest.members, key=lambda member: -member.stored.size),
            workers=self._workers,
        )
        record = StageRecord(
            stage="fetch", started_at=started, dump=manifest.dump, members=tuple(members)
        )
        folder = self._spool.complete(folder, record)
        return FetchReport(
            place=folder.place,
            bytes_by_store=dict(fetching.used),
            fallbacks=fetching.told(),
            size=manifest.plain_size,
            seconds=time.monotonic() - begun,
        )

    def load(
        self, plan: RestorePlan, fetched: FetchReport, target: RestoreTarget
    ) -> tuple[str, ...]:
        """Load the fetched members into the target, beside what it holds."""
        folder = self._files(plan, fetched)
        manifest = _proven_manifest(folder)
        return tuple(self._engine(plan.engine).load(manifest, folder.files, target))

    def compare(self, plan: RestorePlan, target: RestoreTarget) -> tuple[str, ...]:
        """Compare what was loaded with the manifest's facts; return a note of what was compared.

        Raises:
            ComparisonError: Something differs; the target still has what it had.
        """
        manifest = _proven_manifest(self._spool.latest(plan.restore_id, "fetch"))
        engine = self._engine(plan.engine)
        found = engine.compare(manifest, target)
        if found:
            shown = "; ".join(str(difference) for difference in found[:10])
            raise ComparisonError(
                f"The loaded copy of {plan.backup_id} differs in {len(found)} ways: {shown}",
                remedy="The target was not changed. Restore another backup, and find out whether "
                "the target's version or extensions explain the difference.",
                backup_id=plan.backup_id,
                differences=len(found),
            )
        return (f"The loaded copy is what was backed up: {engine.summary(manifest)}",)

    def publish(
        self, plan: RestorePlan, fetched: FetchReport, target: RestoreTarget
    ) -> tuple[str, ...]:
        """Put the compared copy in its final place."""
        folder = self._files(plan, fetched)
        manifest = _proven_manifest(folder)
        return tuple(self._engine(plan.engine).publish(manifest, folder.files, target))

    def record(
        self,
        plan: RestorePlan,
        *,
        actor: str,
        target: str,
        started_at: datetime,
        seconds: Mapping[str, float],
        fetched: FetchReport | None,
        outcome: str,
        notes: Sequence[str] = (),
    ) -> RestoreRecord:
        """Note the restore, whatever became of it, in the catalog and the audit trail."""
        used = fetched.bytes_by_store if fetched else {}
        record = RestoreRecord(
            restore_id=plan.restore_id,
            backup_id=plan.backup_id,
            store="+".join(name for name in plan.stores if used.get(name)) or plan.stores[0],
            target=target,
            actor=actor,
            started_at=started_at,
            finished_at=datetime.now(UTC),
            seconds=dict(seconds),
            bytes_restored=fetched.size if fetched else 0,
            outcome=outcome,
            notes=(*(fetched.fallbacks if fetched else ()), *notes),
        )
        self._ledger.note(
            f"restore {plan.restore_id}", lambda catalog: catalog.record_restore(record)
        )
        event = AuditEvent(
            at=record.finished_at,
            actor=actor,
            action="restore",
            subject=plan.backup_id,
            details={"target": target, "outcome": outcome, "restore_id": plan.restore_id},
        )
        self._ledger.note(
            f"the audit of restore {plan.restore_id}", lambda catalog: catalog.record_event(event)
        )
        return record

    def clear(self, restore_id: str) -> None:
        """Leave nothing of this restore in the spool."""
        self._spool.clear(restore_id)

    def _order(self, prefer: str | None) -> dict[str, Store]:
        if prefer is None or prefer == "auto":
            return dict(self._stores)
        if prefer not in self._stores:
            raise NotFoundError(
                f"There is no store {prefer!r}",
                remedy=f"Use one of: {', '.join(self._stores)}.",
                value=prefer,
            )
        return {prefer: self._stores[prefer], **self._stores}

    def _manifest(self, plan: RestorePlan) -> SealedManifest:
        reasons = []
        for name in plan.stores:
            try:
                return read_manifest(self._stores[name], plan.ref)
            except BackupError as error:
                reasons.append(f"{name}: {error.problem}")
        raise no_copy(f"the manifest of {plan.backup_id}", reasons)

    def _files(self, plan: RestorePlan, fetched: FetchReport) -> Folder:
        ticket = Ticket(
            backup_id=plan.restore_id,
            component=plan.component,
            stage="fetch",
            place=fetched.place,
            members=plan.members,
            size=fetched.size,
        )
        return self._spool.open(ticket)


def _proven_manifest(folder: Folder) -> Manifest:
    """Return the manifest that `fetch` has authenticated, whatever a store says by now."""
    path = folder.path / _MANIFEST
    try:
        return Manifest.model_validate(document.decode(path.read_bytes(), name=str(path)))
    except (OSError, ValidationError) as error:
        raise SpoolError(
            f"{path} cannot be read ({type(error).__name__})",
            remedy="Run the restore from its fetch step on.",
            path=str(path),
        ) from None
