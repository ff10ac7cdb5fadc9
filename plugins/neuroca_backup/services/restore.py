"""Restoring: plan, preflight, fetch, load, compare, publish, record.

Nothing touches the target before every byte has passed its digests and its authentication; the
nearest copy that does is used, and the report says which and why. Every step may be repeated.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from neuroca_backup.catalog import AuditEvent, Catalog, RestoreRecord
from neuroca_backup.engines import Engine, RestoreTarget
from neuroca_backup.errors import (
    BackupError,
    ComparisonError,
    DamagedError,
    KeyUnavailableError,
    NotFoundError,
    SpoolError,
    StoreUnavailableError,
    TransientError,
)
from neuroca_backup.keyring.keys_document import Keyring, KeysDocument
from neuroca_backup.keyring.keyset import Keyset
from neuroca_backup.model import document
from neuroca_backup.model.identity import BackupRef, Component
from neuroca_backup.model.manifest import Manifest, Member, SealedManifest
from neuroca_backup.services import pipeline
from neuroca_backup.services.inventory import Inventory, read_manifest
from neuroca_backup.services.ledger import Ledger
from neuroca_backup.services.progress import Progress
from neuroca_backup.spool import Folder, Spool, SpooledMember, StageRecord, Ticket, translated
from neuroca_backup.stages.resolve import backward_all, resolve
from neuroca_backup.stores import Store
from neuroca_backup.streams import DigestReader, copy

log = logging.getLogger(__name__)

_MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """What will be restored from where; small, and free of secrets. `stores` in order of use."""

    restore_id: str
    backup_id: str
    component: str
    source: str
    engine: str
    stores: tuple[str, ...]
    plain_size: int
    members: int
    taken_at: str
    verified: bool

    @property
    def ref(self) -> BackupRef:
        """Which backup it is."""
        return BackupRef(backup_id=self.backup_id, component=Component(self.component))

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain data; `RestorePlan.from_json` reads it."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RestorePlan:
        """Return the plan in `data`."""
        return cls(**{**data, "stores": tuple(data["stores"])})


@dataclass(frozen=True, slots=True)
class FetchReport:
    """What was fetched: bytes of each store used, the fallbacks with their reasons, the place."""

    place: str
    bytes_by_store: Mapping[str, int]
    fallbacks: tuple[str, ...]
    size: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain data; `FetchReport.from_json` reads it."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FetchReport:
        """Return the report in `data`."""
        return cls(**{**data, "fallbacks": tuple(data["fallbacks"])})


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
        fetching = _Fetching(self._spool, plan, self._keyring, self._stores)
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
            fallbacks=tuple(fetching.fallbacks),
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

    def compare(self, plan: RestorePlan, target: RestoreTarget) -> None:
        """Compare what was loaded with the manifest's facts.

        Raises:
            ComparisonError: Something differs; the target still has what it had.
        """
        manifest = _proven_manifest(self._spool.latest(plan.restore_id, "fetch"))
        found = self._engine(plan.engine).compare(manifest, target)
        if found:
            shown = "; ".join(str(difference) for difference in found[:10])
            raise ComparisonError(
                f"The loaded copy of {plan.backup_id} differs in {len(found)} ways: {shown}",
                remedy="The target was not changed. Restore another backup, and find out whether "
                "the target's version or extensions explain the difference.",
                backup_id=plan.backup_id,
                differences=len(found),
            )

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
        raise _no_copy(f"the manifest of {plan.backup_id}", reasons)

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


@dataclass(slots=True)
class _Fetching:
    """One fetch over several stores; a store that stops answering is not asked again."""

    spool: Spool
    plan: RestorePlan
    keyring: Keyring
    stores: Mapping[str, Store]
    used: dict[str, int] = field(default_factory=dict)
    fallbacks: list[str] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)
    _opened: dict[str, tuple[Manifest, Keyset]] = field(default_factory=dict)
    _progress: Progress = field(init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._progress = Progress(f"fetch {self.plan.backup_id}", total=self.plan.plain_size)

    def open(self) -> Manifest:
        """Authenticate every store's manifest and return the first good one."""
        answers: list[BackupError] = []
        for name in self.plan.stores:
            try:
                self._opened[name] = authenticate(self.stores[name], self.plan.ref, self.keyring)
            except BackupError as error:
                answers.append(error)
                self.lost.add(name)
                self._fall_back(f"{name} is left out: {error.problem}")
        if not self._opened:
            raise self._unopened(answers)
        first = next(iter(self._opened.values()))[0]
        for name, (manifest, _) in list(self._opened.items()):
            if manifest.attempt != first.attempt:
                del self._opened[name]
                self._fall_back(f"{name} is left out: it holds another attempt of this backup")
        return first

    def member(self, member: Member, folder: Folder) -> SpooledMember:
        """Fetch one member from the nearest store whose copy is good."""
        reasons: list[str] = []
        transient = True
        for name, (manifest, keyset) in self._opened.items():
            if name in self.lost:
                reasons.append(f"{name}: stopped answering")
                continue
            try:
                self._fetch(self.stores[name], manifest, keyset, member, folder)
            except SpoolError:
                raise
            except (DamagedError, NotFoundError) as error:
                transient = False
                reasons.append(f"{name}: {error.problem}")
                self._fall_back(f"{member.name} was not taken from {name}: {error.problem}")
            except BackupError as error:
                transient = transient and isinstance(error, TransientError)
                self.lost.add(name)
                reasons.append(f"{name}: {error.problem}")
                self._fall_back(f"{name} stopped answering: {error.problem}")
            else:
                with self._lock:
                    self.used[name] = self.used.get(name, 0) + member.stored.size
                return SpooledMember(name=member.name, plain=member.plain, current=member.plain)
        raise _no_copy(f"{self.plan.backup_id}/{member.name}", reasons, transient=transient)

    def _unopened(self, answers: Sequence[BackupError]) -> BackupError:
        for answer in answers:
            # No store is to blame for a key; `answers` are those of the keyset's recipients.
            if isinstance(answer, KeyUnavailableError) or "answers" in answer.facts:
                return answer
        return _no_copy(
            f"manifest and keys of {self.plan.backup_id}",
            [str(answer) for answer in answers],
            transient=all(isinstance(answer, TransientError) for answer in answers),
        )

    def _fetch(
        self, store: Store, manifest: Manifest, keyset: Keyset, member: Member, folder: Folder
    ) -> None:
        key = manifest.key_of(member)
        path = folder.create(member.name)
        stages = resolve(manifest.stages, keyset=keyset, ref=manifest.ref)
        with store.reader(key) as raw:
            stored = DigestReader(raw, expected=member.stored, name=key, store=store.name)
            with backward_all(stages, stored, member=member.name) as opened:
                plain = DigestReader(opened, expected=member.plain, name=key, store=store.name)
                with translated(self.spool.root), path.open("wb") as out:
                    copy(plain, out, on_bytes=self._progress.add)
            stored.drain()

    def _fall_back(self, note: str) -> None:
        log.warning("%s", note)
        self.fallbacks.append(note)


def authenticate(store: Store, ref: BackupRef, keyring: Keyring) -> tuple[Manifest, Keyset]:
    """Return the manifest of `ref` in `store` with its keyset, once that has proven it.

    Raises:
        DamagedError: The manifest or the keys are not what was written.
        KeyUnavailableError, UnreachableError: No recipient could unwrap the keyset.
    """
    sealed = read_manifest(store, ref)
    keys_key = ref.keys_key(sealed.manifest.attempt)
    name = f"{store.name}:{keys_key}"
    keys = KeysDocument.decode(store.get(keys_key), name=name)
    keyset = keyring.unwrap(keys, backup_id=ref.backup_id, name=name)
    if not keyset.verify_mac(sealed.covered, sealed.mac):
        raise DamagedError(
            f"{store.name}:{ref.manifest_key} has a MAC that this backup's key did not make",
            remedy="Someone may have changed it: restore from another store.",
            key=ref.manifest_key,
            store=store.name,
        )
    return sealed.manifest, keyset


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


def _no_copy(what: str, reasons: Sequence[str], *, transient: bool = False) -> BackupError:
    problem = f"No store has a good copy of {what}: {'; '.join(reasons)}"
    if transient:
        return StoreUnavailableError(
            problem, remedy="It is tried again; mend the network if it goes on.", what=what
        )
    return DamagedError(
        problem, remedy="Restore an older backup: `neuroca-backup list` shows them.", what=what
    )
