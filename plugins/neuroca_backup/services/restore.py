"""Restoring: plan, preflight, fetch, load, compare, publish, record.

Nothing touches the target before every byte has passed its digests and its authentication; the
nearest copy that does is used, and the report says which and why. Every step may be repeated.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from neuroca_backup import sandbox
from neuroca_backup.catalog import AuditEvent, Catalog, RestoreRecord
from neuroca_backup.engines import Engine, Previewing, Restorable, RestoreTarget
from neuroca_backup.errors import (
    BackupError,
    ChainBrokenError,
    ComparisonError,
    ConfigurationError,
    NotFoundError,
    SpoolError,
)
from neuroca_backup.keyring.keys_document import Keyring
from neuroca_backup.model import document
from neuroca_backup.model.identity import BackupRef, Component
from neuroca_backup.model.manifest import Manifest, SealedManifest
from neuroca_backup.model.tickets import FetchReport, RestorePlan, Ticket
from neuroca_backup.services import chains, pipeline
from neuroca_backup.services.fetch import Fetching, no_copy, told
from neuroca_backup.services.inventory import Inventory, read_manifest
from neuroca_backup.services.ledger import Ledger
from neuroca_backup.services.progress import Progress
from neuroca_backup.spool import Folder, Spool, SpooledMember, StageRecord
from neuroca_backup.stores import Store

log = logging.getLogger(__name__)

_CHAIN = "chain.json"


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
        until: datetime | None = None,
        only: Sequence[str] = (),
        prefer: str | None = None,
    ) -> RestorePlan:
        """Choose the backup, and gather the chain that it needs.

        By id; or the newest verified one (before a time); or, with `until`, the one that reaches
        that moment with the least to replay.

        Raises:
            NotFoundError: There is no such backup in any store that answers.
            ChainBrokenError: A backup that it continues is missing or damaged.
            ConfigurationError: The chosen backup does not reach from before `until` to after it.
        """
        stores = self._order(prefer)
        inventory = Inventory(stores)
        if until is not None and backup_id is None:
            chain = chains.covering(inventory, component, source, until=until)
        else:
            found = inventory.find(source, component=component, backup_id=backup_id, before=before)
            chain = chains.gather(inventory, found)
        manifests = chains.manifests(chain)
        if until is not None:
            _require_within(until, manifests)
        return RestorePlan(
            restore_id=restore_id,
            backup_id=manifests[-1].backup_id,
            component=component.value,
            source=source,
            engine=manifests[-1].engine,
            # Each later step asks in this order: a dead store first would cost its timeouts again.
            stores=tuple(sorted(stores, key=lambda name: name in inventory.unreachable)),
            plain_size=sum(manifest.plain_size for manifest in manifests),
            members=sum(len(manifest.members) for manifest in manifests),
            taken_at=manifests[-1].started_at.isoformat(),
            verified=all(one.verified for one in chain),
            chain=tuple(manifest.backup_id for manifest in manifests),
            until=until.isoformat() if until else "",
            only=tuple(only),
        )

    def preflight(self, plan: RestorePlan, target: RestoreTarget) -> tuple[str, ...]:
        """Refuse before anything is touched: no space, versions, a target that holds data."""
        self._spool.require_free(plan.plain_size)
        engine = self._engine(plan.engine)
        if isinstance(engine, Previewing):
            return self._preview(plan, engine.preview, partial(engine.preflight, target=target))
        chain = tuple(self._manifest(plan, ref).manifest for ref in plan.refs)
        return tuple(engine.preflight(self._restorable(plan, chain), target))

    def _preview(
        self,
        plan: RestorePlan,
        names: Sequence[str],
        preflight: Callable[[Restorable], Sequence[str]],
    ) -> tuple[str, ...]:
        """Do `preflight` with the members `names` of every backup of the chain, then drop them."""
        folder = self._spool.claim(plan.restore_id, "preview")
        try:
            chain: list[Manifest] = []
            stores = {name: self._stores[name] for name in plan.stores}
            for ref in plan.refs:
                progress = Progress(f"preview {ref.backup_id}")
                fetching = Fetching(self._spool, ref, self._keyring, stores, progress)
                chain.append(fetching.open())
                for member in chain[-1].members:
                    if member.name in names:
                        fetching.member(member, folder=folder)
            folders = tuple(folder.files / ref.backup_id for ref in plan.refs)
            return tuple(preflight(self._restorable(plan, tuple(chain), folders)))
        finally:
            self._spool.remove(folder)

    def fetch(self, plan: RestorePlan) -> FetchReport:
        """Fetch, unseal and decompress every member into the spool, from the nearest good copy.

        Raises:
            DamagedError: No store has a good copy of some member; lists what each one answered.
            KeyUnavailableError: No recipient could unwrap the keyset.
        """
        begun = time.monotonic()
        folder = self._spool.claim(plan.restore_id, "fetch")
        started = datetime.now(UTC)
        progress = Progress(f"fetch {plan.backup_id}", total=plan.plain_size)
        order = list(plan.stores)
        used: dict[str, int] = {}
        fallbacks: list[str] = []
        members: list[SpooledMember] = []
        chain: list[Manifest] = []
        for ref in plan.refs:
            stores = {name: self._stores[name] for name in order}
            fetching = Fetching(self._spool, ref, self._keyring, stores, progress, used, fallbacks)
            manifest = fetching.open()
            _require_link(manifest, chain, plan)
            chain.append(manifest)
            (folder.files / ref.backup_id).mkdir(mode=0o700)  # an empty backup has no member
            members += pipeline.in_parallel(
                partial(fetching.member, folder=folder),
                sorted(manifest.members, key=lambda member: -member.stored.size),
                workers=self._workers,
            )
            # What has stopped answering is asked last, so that it costs its timeouts once.
            order.sort(key=fetching.lost.__contains__)
        documents = [manifest.model_dump(mode="json") for manifest in chain]
        (folder.path / _CHAIN).write_bytes(document.encode({"chain": documents}))
        record = StageRecord(
            stage="fetch", started_at=started, dump=chain[-1].dump, members=tuple(members)
        )
        folder = self._spool.complete(folder, record)
        return FetchReport(
            place=folder.place,
            bytes_by_store=dict(used),
            fallbacks=told(fallbacks),
            size=sum(manifest.plain_size for manifest in chain),
            seconds=time.monotonic() - begun,
        )

    def load(
        self, plan: RestorePlan, fetched: FetchReport, target: RestoreTarget
    ) -> tuple[str, ...]:
        """Load the fetched members into the target, beside what it holds."""
        backup = self._fetched(plan, self._files(plan, fetched))
        return tuple(self._engine(plan.engine).load(backup, target))

    def compare(self, plan: RestorePlan, target: RestoreTarget) -> tuple[str, ...]:
        """Compare what was loaded with the manifest's facts; return a note of what was compared.

        Raises:
            ComparisonError: Something differs; the target still has what it had.
        """
        backup = self._fetched(plan, self._spool.latest(plan.restore_id, "fetch"))
        engine = self._engine(plan.engine)
        found = engine.compare(backup, target)
        if found:
            shown = "; ".join(str(difference) for difference in found[:10])
            raise ComparisonError(
                f"The loaded copy of {plan.backup_id} differs in {len(found)} ways: {shown}",
                remedy="The target was not changed. Restore another backup, and find out whether "
                "the target's version or extensions explain the difference.",
                backup_id=plan.backup_id,
                differences=len(found),
            )
        return (f"The loaded copy is what was backed up: {engine.summary(backup.last)}",)

    def publish(
        self, plan: RestorePlan, fetched: FetchReport, target: RestoreTarget
    ) -> tuple[str, ...]:
        """Put the compared copy in its final place."""
        backup = self._fetched(plan, self._files(plan, fetched))
        return tuple(self._engine(plan.engine).publish(backup, target))

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
        """Stop what an engine has started for this restore, and leave nothing in the spool."""
        try:
            self._end(self._spool.work(restore_id))
        finally:
            self._spool.clear(restore_id)

    def end_forgotten(self, *, older_than: timedelta) -> None:
        """Stop and remove what restores left running longer than `older_than` ago."""
        for forgotten in self._spool.stale_sandboxes(older_than=older_than):
            log.warning("Stopping %s, which was kept and forgotten", forgotten.name)
            self._end(forgotten)

    def _end(self, servers: Path) -> None:
        """Stop the servers below a folder, then remove it, whoever made it."""
        sandbox.stop(servers)
        self._spool.remove(Folder(servers))

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

    def _manifest(self, plan: RestorePlan, ref: BackupRef) -> SealedManifest:
        reasons = []
        for name in plan.stores:
            try:
                return read_manifest(self._stores[name], ref)
            except BackupError as error:
                reasons.append(f"{name}: {error.problem}")
        raise no_copy(f"the manifest of {ref.backup_id}", reasons)

    def _restorable(
        self, plan: RestorePlan, chain: tuple[Manifest, ...], folders: tuple[Path, ...] = ()
    ) -> Restorable:
        return Restorable(
            chain=chain,
            work=self._spool.work(plan.restore_id),
            folders=folders,
            until=datetime.fromisoformat(plan.until) if plan.until else None,
            only=plan.only,
        )

    def _fetched(self, plan: RestorePlan, folder: Folder) -> Restorable:
        """Return the backup as `fetch` has authenticated it, whatever a store says by now."""
        path = folder.path / _CHAIN
        try:
            documents = document.decode(path.read_bytes(), name=str(path))["chain"]
            chain = tuple(Manifest.model_validate(one) for one in documents)
        except (OSError, ValidationError, KeyError) as error:
            raise SpoolError(
                f"{path} cannot be read ({type(error).__name__})",
                remedy="Run the restore from its fetch step on.",
                path=str(path),
            ) from None
        folders = tuple(folder.files / manifest.backup_id for manifest in chain)
        return self._restorable(plan, chain, folders)

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


def _require_link(manifest: Manifest, chain: Sequence[Manifest], plan: RestorePlan) -> None:
    """Raise `ChainBrokenError` unless the authenticated `manifest` continues `chain`."""
    expected = chain[-1].backup_id if chain else None
    if manifest.parent != expected or manifest.engine != plan.engine:
        raise ChainBrokenError(
            f"{manifest.backup_id} continues {manifest.parent or 'nothing'} "
            f"(engine {manifest.engine}), the plan says {expected or 'nothing'} ({plan.engine})",
            remedy="The stores have changed since the plan was made: plan the restore again.",
            backup_id=manifest.backup_id,
        )


def _require_within(until: datetime, chain: Sequence[Manifest]) -> None:
    first, last = chain[0].dump.consistent_at, chain[-1].dump.consistent_at
    if not first <= until <= last:
        raise ConfigurationError(
            f"{chain[-1].backup_id} can be restored to moments from {first.isoformat()} to "
            f"{last.isoformat()}, not to {until.isoformat()}",
            remedy="Choose a moment in between, or leave the backup to be found by the moment.",
            value=until.isoformat(),
        )
