"""Making the catalog again from what the stores hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from pydantic import ValidationError

from neuroca_backup.catalog import Catalog
from neuroca_backup.errors import (
    BackupError,
    ConfigurationError,
    DamagedError,
    NotFoundError,
    PermanentError,
    TransientError,
)
from neuroca_backup.model import document
from neuroca_backup.model.backup_set import PREFIX as SETS
from neuroca_backup.model.identity import BackupRef, Component
from neuroca_backup.model.manifest import Manifest, SealedManifest
from neuroca_backup.model.recovery import PREFIX as RECOVERIES
from neuroca_backup.model.status import Verification
from neuroca_backup.services import needs
from neuroca_backup.services.inventory import read_tombstone
from neuroca_backup.stores import Store

PATIENCE = 3  # objects in a row that a store may fail to give before its walk is given up
# Which backups belong together, and what became of disasters: no backups themselves.
_NO_BACKUPS = frozenset({SETS, RECOVERIES})
_EVERYTHING = 2**31 - 1  # a limit that no catalog reaches; fits PostgreSQL's integer


@dataclass(frozen=True, slots=True)
class RebuildProblem:
    """One object or folder of a store that could not be read as what it should be."""

    store: str
    key: str
    problem: str

    def __str__(self) -> str:
        return f"{self.store}: {self.key or '(top)'}: {self.problem}"


@dataclass(slots=True)
class RebuildReport:
    """What a rebuild found.

    `backups` counts distinct backups and `copies` backups in each store; `unfinished` are folders
    without a manifest (`store: prefix`), which are no backups, and `referenced` those among them
    whose members later backups refer to; `forgotten` are the ids that the catalog listed and no
    store holds. Any problem makes the rebuild incomplete.
    """

    backups: int = 0
    copies: int = 0
    forgotten: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    referenced: list[str] = field(default_factory=list)
    problems: list[RebuildProblem] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every manifest and verification of every store is in the catalog now."""
        return not self.problems


def rebuild(catalog: Catalog, stores: Mapping[str, Store]) -> RebuildReport:
    """Record every backup that `stores` hold; forget what is in none of them.

    Give every configured store: what none of the given ones holds is forgotten, provided that
    each of them was listed to its end. Nothing is forgotten when a store gave an error, or holds
    no backup although the catalog or its other objects say that it should. Stores are only read.

    Raises:
        BackupError: The catalog itself failed. What a store fails at is in the report instead.
    """
    catalog.prepare()
    walk = _Rebuild(catalog, stores)
    for store in stores:
        walk.record_store(store)
    walk.tell_apart()
    if walk.listed_completely:
        walk.forget()
    walk.mark_expired()
    return walk.report


class _Rebuild:
    """The state of one rebuild; of each backup only the id and its stores are kept."""

    def __init__(self, catalog: Catalog, stores: Mapping[str, Store]) -> None:
        self.report = RebuildReport()
        self.listed_completely = bool(stores)
        self._catalog = catalog
        self._stores = stores
        # Read before the stores are: a backup made meanwhile is not in it, so never forgotten.
        known = {
            BackupRef(entry.backup_id, entry.component): entry
            for entry in catalog.backups(limit=_EVERYTHING)
        }
        self._known = {ref: frozenset(entry.levels) for ref, entry in known.items()}
        self._marked = {ref: entry.expired_at for ref, entry in known.items() if entry.expired_at}
        self._held: dict[BackupRef, tuple[str, ...]] = {}
        self._unreadable: set[BackupRef] = set()
        self._expired: dict[BackupRef, datetime] = {}
        self._referred: set[str] = set()

    def record_store(self, name: str) -> None:
        """Record every backup of one store; what is wrong with the store goes to the report."""
        for manifest, verification in self._backups(name):
            self._record(name, manifest, verification)
            self._note_expiry(name, manifest.ref)
            self._referred.update(f"{name}: {one.prefix}" for one in needs.holders(manifest))
            stores = self._held.get(manifest.ref, ())
            self._held[manifest.ref] = (*stores, name)
            self.report.backups += not stores
            self.report.copies += 1

    def tell_apart(self) -> None:
        """Split the folders without a manifest into leftovers, and what later backups refer to."""
        found = self.report.unfinished
        self.report.referenced = [one for one in found if one in self._referred]
        self.report.unfinished = [one for one in found if one not in self._referred]

    def mark_expired(self) -> None:
        """Note which backups are to be deleted; those that were taken back are so no longer."""
        for ref in self._held:
            at = self._expired.get(ref)
            if at != self._marked.get(ref):
                self._catalog.record_expiry(ref.backup_id, at)

    def forget(self) -> None:
        """Remove from the catalog what no store holds any more, and copies that are gone."""
        for ref, stores in self._known.items():
            held = self._held.get(ref, ())
            if stores <= set(held):
                continue
            try:
                again = [(name, self._read(name, ref)) for name in held]
            except BackupError as error:
                self._problem(", ".join(held), ref.prefix, error)
                continue
            if ref in self._unreadable:
                continue
            self._catalog.forget_backup(ref.backup_id)
            self._marked.pop(ref, None)
            for name, found in again:
                if found is not None:
                    self._record(name, *found)
            if not held:
                self.report.forgotten.append(ref.backup_id)

    def _note_expiry(self, name: str, ref: BackupRef) -> None:
        try:
            found = read_tombstone(self._stores[name], ref)
        except BackupError as error:
            self._problem(name, ref.tombstone_key, error)
            return
        if found is not None:
            self._expired[ref] = max(found.expired_at, self._expired.get(ref, found.expired_at))

    def _record(self, name: str, manifest: Manifest, verification: Verification | None) -> None:
        self._catalog.record_backup(manifest, store=name)
        if verification is not None:
            self._catalog.record_verification(verification)

    def _backups(self, name: str) -> Iterator[tuple[Manifest, Verification | None]]:
        """Yield what one store holds; a store that fails ends the walk and says so."""
        failures = holding = 0
        try:
            for ref in self._refs(name):
                try:
                    found = self._read(name, ref)
                except TransientError as error:
                    self._unreadable.add(ref)
                    self._problem(name, ref.prefix, error)
                    failures += 1
                    if failures == PATIENCE:
                        raise
                    continue
                failures = 0
                holding += found is not None or ref in self._unreadable
                if found is not None:
                    yield found
            if not holding and not failures:
                self._explain_nothing(name)
        except BackupError as error:
            self.listed_completely = False
            self._problem(name, "", f"the walk ended here: {error}")

    def _refs(self, name: str) -> Iterator[BackupRef]:
        """Yield every folder that can be a backup; any other one is a problem."""
        store = self._stores[name]
        for component in store.folders():
            if component in _NO_BACKUPS:
                continue
            if component not in set(Component):
                self._problem(name, component, "is not the folder of a component")
                continue
            for source in store.folders(component):
                for backup_id in store.folders(f"{component}/{source}"):
                    prefix = f"{component}/{source}/{backup_id}"
                    try:
                        ref = BackupRef(backup_id, Component(component))
                    except ConfigurationError as error:
                        self._problem(name, prefix, error.problem)
                        continue
                    if ref.prefix == prefix:
                        yield ref
                    else:
                        self._problem(name, prefix, f"belongs into {ref.prefix}")

    def _read(self, name: str, ref: BackupRef) -> tuple[Manifest, Verification | None] | None:
        """Return a backup's manifest and newest verification, or None without a manifest.

        What is damaged or may not be read goes to the report.

        Raises:
            TransientError: The store did not give an object, but may do so later.
            BackupError: The store itself is gone.
        """
        try:
            data = self._stores[name].get(ref.manifest_key)
        except NotFoundError:
            self._stores[name].check()  # a store that went away is not a backup that did
            self.report.unfinished.append(f"{name}: {ref.prefix}")
            return None
        except PermanentError as error:
            self._damaged(name, ref, error)
            return None
        try:
            manifest = SealedManifest.decode(data, name=ref.manifest_key, ref=ref).manifest
        except DamagedError as error:
            self._damaged(name, ref, error)
            return None
        if (manifest.set_id, manifest.source) != (ref.set_id, ref.source):
            self._damaged(name, ref, "contradicts its own backup id")
            return None
        return manifest, self._verification(name, ref)

    def _damaged(self, name: str, ref: BackupRef, problem: object) -> None:
        """Report a manifest; its backup is neither recorded nor forgotten."""
        self._unreadable.add(ref)
        self._problem(name, ref.manifest_key, problem)

    def _verification(self, name: str, ref: BackupRef) -> Verification | None:
        key = ref.verification_key
        try:
            body = document.decode(self._stores[name].get(key), name=key)
            verification = Verification.model_validate(body)
        except NotFoundError:
            return None
        except PermanentError as error:
            self._problem(name, key, error)
            return None
        except ValidationError as error:
            first = error.errors()[0]
            self._problem(name, key, f"is not a verification: {first['loc']}: {first['msg']}")
            return None
        if (verification.backup_id, verification.store) != (ref.backup_id, name):
            self._problem(
                name,
                key,
                f"speaks of {verification.backup_id} in {verification.store}; verify again",
            )
            return None
        return verification

    def _explain_nothing(self, name: str) -> None:
        """A store without a backup is fine only when nothing speaks against it."""
        listed = sum(name in stores for stores in self._known.values())
        if listed:
            problem = f"holds no backup, but the catalog lists {listed} there"
        elif any(one.key.partition("/")[0] not in _NO_BACKUPS for one in self._stores[name].list()):
            problem = "holds objects but no backup"
        else:
            return
        self.listed_completely = False
        self._problem(name, "", f"{problem}; check its bucket and path")

    def _problem(self, store: str, key: str, problem: object) -> None:
        self.report.problems.append(RebuildProblem(store, key, str(problem)))
