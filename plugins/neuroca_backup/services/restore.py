"""Restoring: plan, preflight, fetch, load, compare, publish, record.

Nothing touches the target before every byte has passed its digests and its authentication; the
nearest copy that does is used, and the report says which and why. Every step may be repeated.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from neuroca_backup import sandbox
from neuroca_backup.catalog import Catalog, RestoreRecord
from neuroca_backup.engines import Engine, Previewing, Question, Restorable, RestoreTarget
from neuroca_backup.errors import (
    ArchivedError,
    BackupError,
    ChainBrokenError,
    ComparisonError,
    DamagedError,
    NotFoundError,
    SpoolError,
)
from neuroca_backup.keyring.keys_document import Keyring
from neuroca_backup.model import document
from neuroca_backup.model.identity import BackupRef, Component
from neuroca_backup.model.manifest import Manifest, SealedManifest
from neuroca_backup.model.tickets import FetchReport, RestorePlan, Ticket
from neuroca_backup.services import asking, pipeline, planning
from neuroca_backup.services.audit import Audit
from neuroca_backup.services.fetch import Fetching, no_copy, told
from neuroca_backup.services.inventory import read_manifest
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
        audit: The audit trail; without one, that of these stores.
        as_of: The moment as of which `stores` are read, None for now.
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
        audit: Audit | None = None,
        as_of: datetime | None = None,
    ) -> None:
        self._engine = engine
        self._stores = stores
        self._keyring = keyring
        self._ledger = Ledger(catalog)
        self._audit = audit or Audit(stores=stores, catalog=catalog)
        self._spool = spool
        self._workers = workers
        self._as_of = as_of.isoformat() if as_of is not None else ""

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
        allow_older: bool = False,
    ) -> RestorePlan:
        """Choose the backup, and gather the chain that it needs.

        See `planning.plan`, which also says what it raises.
        """
        found = planning.plan(
            planning.order(self._stores, prefer),
            component=component,
            source=source,
            restore_id=restore_id,
            backup_id=backup_id,
            before=before,
            until=until,
            only=only,
            allow_older=allow_older,
        )
        return replace(found, as_of=self._as_of)

    def preflight(self, plan: RestorePlan, target: RestoreTarget) -> tuple[str, ...]:
        """Refuse before anything is touched: no space, versions, a target that holds data."""
        self._spool.require_free(plan.plain_size)
        return self.versions(plan, target)

    def versions(self, plan: RestorePlan, target: RestoreTarget) -> tuple[str, ...]:
        """Refuse what the engine cannot do: versions, parts, a target that holds data."""
        engine = self._engine(plan.engine)
        if isinstance(engine, Previewing):
            preflight = partial(engine.preflight, target=target)
            try:
                return self._preview(plan, engine.preview, preflight)
            except ArchivedError:
                return (f"{plan.backup_id} lies in an archive: looked at again once retrieved",)
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

        Where no store has the backup whole and the plan allows it, the newest earlier backup that
        is good is fetched; the report's plan says which. Nothing else is touched meanwhile.

        Raises:
            DamagedError: No store has a good copy of some member; lists what each one answered,
                and names the earlier backup that could be restored.
            KeyUnavailableError: No recipient could unwrap the keyset.
            ArchivedError: Some member is only in an archive, and was not retrieved.
        """
        bad: set[str] = set()
        while True:
            try:
                return self._fetch(plan, bad)
            except (DamagedError, NotFoundError, ChainBrokenError) as error:
                earlier = planning.older(self._ordered(plan), plan, error, bad=bad)
                if earlier is None or not plan.allow_older:
                    raise planning.refusal(error, earlier, source=plan.source) from None
                self._spool.require_free(earlier.plain_size)
                log.warning("%s Now %s is fetched.", earlier.passed_over[-1], earlier.backup_id)
                plan = earlier

    def _ordered(self, plan: RestorePlan) -> dict[str, Store]:
        return {name: self._stores[name] for name in plan.stores}

    def _fetch(self, plan: RestorePlan, bad: set[str]) -> FetchReport:
        """Fetch one backup; the id of a link that no store has whole is added to `bad`."""
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
            bad.add(ref.backup_id)  # until it has been fetched
            manifest = fetching.open()
            _require_link(manifest, chain, plan)
            chain.append(manifest)
            (folder.files / ref.backup_id).mkdir(mode=0o700)  # an empty backup has no member
            members += pipeline.in_parallel(
                partial(fetching.member, folder=folder),
                sorted(manifest.members, key=lambda member: -member.stored.size),
                workers=self._workers,
            )
            bad.discard(ref.backup_id)
            # What has stopped answering is asked last, so that it costs its timeouts once.
            order.sort(key=fetching.lost.__contains__)
        documents = [manifest.model_dump(mode="json") for manifest in chain]
        (folder.path / _CHAIN).write_bytes(document.encode({"chain": documents}))
        record = StageRecord(
            stage="fetch", started_at=started, dump=chain[-1].dump, members=tuple(members)
        )
        folder = self._spool.complete(folder, record)
        return FetchReport(
            plan=plan,
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

    def fetched_manifest(self, plan: RestorePlan) -> Manifest:
        """Return the manifest of the backup that `fetch` has brought, as it was authenticated."""
        return self._fetched(plan, self._spool.latest(plan.restore_id, "fetch")).last

    def examine(
        self,
        plan: RestorePlan,
        target: RestoreTarget,
        *,
        questions: Sequence[Question] = (),
        speed: bool = False,
    ) -> tuple[str, ...]:
        """Ask the restored copy, in its final place, whether it works; return notes.

        What was not swapped into its place but written there is compared there, too. `speed` says
        whether the target has to answer about as quickly as the source did.

        Raises:
            ComparisonError: It has a problem, or differs; it is in its place nevertheless.
        """
        backup = self.fetched(plan)
        engine, facts = self._engine(plan.engine), backup.last.dump.facts
        problems: list[str] = []
        if not engine.keeps:
            problems += map(str, engine.compare(backup, target))
        answers = asking.ask(engine, target.endpoint, facts, questions, only=plan.only)
        outcome = asking.judge(answers, facts.get(asking.FACT, {}), speed=speed)
        problems += outcome.problems
        if problems:
            raise ComparisonError(
                f"The restored copy of {plan.backup_id} does not work as it should in "
                f"{len(problems)} ways: {'; '.join(problems[:10])}",
                remedy="It is in its place, and what it replaced was kept or saved: the notes say "
                "where. The source did not have these problems when it was backed up: look at the "
                "target, or restore another backup.",
                backup_id=plan.backup_id,
                problems=len(problems),
            )
        return outcome.notes

    def fetched(self, plan: RestorePlan) -> Restorable:
        """Return what `fetch` has authenticated; raises `SpoolError` where it is gone."""
        return self._fetched(plan, self._spool.latest(plan.restore_id, "fetch"))

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
            notes=(*plan.passed_over, *(fetched.fallbacks if fetched else ()), *notes),
        )
        self._ledger.note(
            f"restore {plan.restore_id}", lambda catalog: catalog.record_restore(record)
        )
        self._audit.note(
            "restore",
            plan.backup_id,
            actor=actor,
            result=outcome,
            details={
                "target": target,
                "outcome": outcome,
                "restore_id": plan.restore_id,
                "store": record.store,
                "bytes": record.bytes_restored,
            },
        )
        return record

    def clear(self, restore_id: str) -> None:
        """Stop what an engine has started for this restore, and leave nothing in the spool."""
        try:
            self._end(self._spool.work(restore_id))
        finally:
            self._spool.clear(restore_id)

    def abandon(self, restore_id: str) -> None:
        """Clear what a restore that was killed has left, its throwaway target, too."""
        try:
            self._end(self._spool.sandbox(restore_id))
        finally:
            self.clear(restore_id)

    def end_forgotten(self, *, older_than: timedelta) -> None:
        """Stop and remove what restores left running longer than `older_than` ago."""
        for forgotten in self._spool.stale_sandboxes(older_than=older_than):
            log.warning("Stopping %s, which was kept and forgotten", forgotten.name)
            self._end(forgotten)

    def _end(self, servers: Path) -> None:
        """Stop the servers below a folder, then remove it, whoever made it."""
        sandbox.stop(servers)
        self._spool.remove(Folder(servers))

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
        if tuple(manifest.backup_id for manifest in chain) != plan.chain:
            raise SpoolError(
                f"{folder.path} holds {chain[-1].backup_id}, not {plan.backup_id}",
                remedy="Run the restore from its fetch step on.",
                path=str(folder.path),
            )
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
