"""What the stores and the catalog say of the sources, read for a judgement.

Only what lies in a store counts as a backup. The catalog names what there should be and which full
backups came before; where it does not answer, the stores' manifests alone tell.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice

from neuroca_backup.catalog import Catalog, CatalogEntry
from neuroca_backup.catalog.null import NullCatalog
from neuroca_backup.errors import BackupError, ChainBrokenError
from neuroca_backup.model.identity import BackupRef, Component, is_part_of
from neuroca_backup.model.manifest import Manifest
from neuroca_backup.model.status import Level
from neuroca_backup.services import chains
from neuroca_backup.services.inventory import CLOCK_TOLERANCE, Inventory, Listed, read_manifest
from neuroca_backup.services.objectives.counting import content
from neuroca_backup.services.objectives.judging import Facts, Measured, Proof, SourceFacts
from neuroca_backup.services.sets import Sets
from neuroca_backup.stores import Store

log = logging.getLogger(__name__)

# Behind so many backups that do not count no other is looked for: their reasons say enough.
_LOOKED_AT = 100
# Without a catalog the full backups are looked for among so many.
_WALKED = 60
# Incremental backups lie between the full ones.
_LISTED = 1000
_TROUBLE_TOLD = 3


@dataclass(frozen=True, slots=True)
class Watched:
    """A source of backup.yaml; a divided one is many things, each backed up by itself."""

    component: Component
    source: str
    divided: bool = False


@dataclass(slots=True)
class Gathering:
    """One look at the stores and the catalog.

    Args:
        stores: Every configured store.
        catalog: The catalog; one that keeps nothing where none is configured.
        now: The time (aware) of this look.
        compared_with: How many full backups before the newest are measured.
    """

    stores: Mapping[str, Store]
    catalog: Catalog
    now: datetime
    compared_with: int
    _inventory: Inventory = field(init=False)
    _catalog_problem: str = field(init=False, default="")

    def __post_init__(self) -> None:
        self._inventory = Inventory(self.stores)

    def facts(self, sources: Sequence[Watched]) -> Facts:
        """Return what is known of `sources`, of each of their parts where they are divided.

        Nothing of a store or the catalog is raised: what does not answer is in the facts.
        """
        self._require_answers()
        found = [
            self._source(watched.component, name)
            for watched in sources
            for name in self._names(watched)
        ]
        return Facts(
            sources=tuple(found),
            stores=len(self.stores),
            silent=dict(self._inventory.unreachable),
            catalog_problem=self._catalog_problem,
        )

    def _require_answers(self) -> None:
        """Ask every store first: one that nothing is read from must be missed, too."""
        for name, store in self.stores.items():
            try:
                store.check()
            except BackupError as error:
                self._inventory.unreachable[name] = str(error)

    def _names(self, watched: Watched) -> Sequence[str]:
        """Return the source, or its parts: those of the newest set, or else all that there are."""
        component, source = watched.component, watched.source
        if not watched.divided:
            return (source,)
        try:
            parts = self._parts_of_newest_set(component, source)
            if parts:
                return parts
            there = {name for c, name in self._inventory.sources() if c is component}
        except BackupError as error:
            log.warning("The parts of %s are not known: %s", source, error.problem)
            return (source,)
        return sorted(one for one in there if is_part_of(one, source)) or (source,)

    def _parts_of_newest_set(self, component: Component, source: str) -> Sequence[str]:
        """Return the parts that the newest run was to back up; those that are gone do not count."""
        answering = {n: s for n, s in self.stores.items() if n not in self._inventory.unreachable}
        if not answering:
            return ()
        for listed in islice(Sets(answering).newest_first(component), _LOOKED_AT):
            if listed.found is not None and source in listed.found.whole:
                return [one for one in listed.found.sources if is_part_of(one, source)]
        return ()

    def _source(self, component: Component, source: str) -> SourceFacts:
        entries = self._entries(component, source)
        proof: Proof | None = None
        trouble: list[str] = []
        seen = 0
        try:
            for found in islice(self._inventory.newest_first(component, source), _LOOKED_AT):
                seen += 1
                proof, why = self._proof(found)
                if proof is not None:
                    break
                if why and len(trouble) < _TROUBLE_TOLD:
                    trouble.append(f"{found.ref.backup_id} {why}")
            fulls = tuple(islice(self._fulls(component, source, entries), self.compared_with + 1))
            vanished = tuple(self._vanished(entries, proof))
        except BackupError as error:
            trouble.append(error.problem)
            fulls, vanished = (), ()
        verified = {one.backup_id for one in entries or () if _verified(one)}
        return SourceFacts(
            component=component,
            source=source,
            proof=proof,
            seen=seen,
            trouble=tuple(trouble),
            fulls=fulls,
            vanished=vanished,
            uncatalogued=entries is not None
            and proof is not None
            and proof.backup_id not in verified,
        )

    def _proof(self, found: Listed) -> tuple[Proof | None, str]:
        """Return what a backup proves; or None, and why it does not count, "" if it is not to."""
        manifest, current_at = found.manifest, found.current_at
        if manifest is None or current_at is None:
            return None, f"cannot be read: {'; '.join(found.problems.values())}"
        if manifest.before_restore:
            return None, ""  # the state that a restore was to mend
        why = self._unfit(found, current_at)
        chain: tuple[Listed, ...] = ()
        if not why:
            try:
                chain = chains.gather(self._inventory, found)
            except ChainBrokenError as error:
                why = f"cannot be restored: {error.problem}"
        unverified = next((one.ref.backup_id for one in chain if not one.verified), None)
        if unverified is not None:
            why = f"continues {unverified}, which is not verified"
        if why:
            return None, why
        sound = (name for name in found.manifests if all(one.sound_in(name) for one in chain))
        proof = Proof(
            backup_id=manifest.backup_id,
            current_at=current_at,
            stores=frozenset(sound),
            plain_size=sum(one.plain_size for one in chains.manifests(chain)),
            unchanged=current_at > manifest.dump.consistent_at,
        )
        return proof, ""

    def _unfit(self, found: Listed, current_at: datetime) -> str:
        """Return why a backup itself does not count, "" where it does."""
        if found.expired:
            return "has expired"
        if not found.verified:
            return "is damaged in every store" if found.damaged else "is not verified"
        if max(found.ref.time, current_at) > self.now + CLOCK_TOLERANCE:
            return "is from the future: some clock is wrong"
        return ""

    def _entries(self, component: Component, source: str) -> Sequence[CatalogEntry] | None:
        """Return what the catalog lists of a source, newest first; None where it tells nothing."""
        if isinstance(self.catalog, NullCatalog) or self._catalog_problem:
            return None
        try:
            return self.catalog.backups(component=component, source=source, limit=_LISTED)
        except BackupError as error:
            self._catalog_problem = error.problem
            return None

    def _fulls(
        self, component: Component, source: str, entries: Sequence[CatalogEntry] | None
    ) -> Iterator[Measured]:
        """Yield the verified full backups of a source, newest first, by their manifests."""
        if entries is None:
            walked = islice(self._inventory.newest_first(component, source), _WALKED)
            manifests = (one.manifest for one in walked if one.verified)
        else:
            full = (one for one in entries if one.kind == "full" and _verified(one))
            manifests = (self._manifest(BackupRef(one.backup_id, component)) for one in full)
        for manifest in manifests:
            if manifest is None or manifest.before_restore or manifest.kind != "full":
                continue
            yield Measured(
                backup_id=manifest.backup_id,
                size=manifest.plain_size,
                content=content(manifest.dump.facts),
            )

    def _manifest(self, ref: BackupRef) -> Manifest | None:
        """Return the manifest that the first answering store has of a backup, or None."""
        for name, store in self.stores.items():
            if name not in self._inventory.unreachable:
                try:
                    return read_manifest(store, ref).manifest
                except BackupError as error:
                    log.info("%s: %s", name, error.problem)
        return None

    def _vanished(
        self, entries: Sequence[CatalogEntry] | None, proof: Proof | None
    ) -> Iterator[str]:
        """Yield the backups newer than `proof` that the catalog calls verified and no store has.

        A store that does not answer may have them: then none is called so.
        """
        for entry in entries or ():
            if proof is not None and entry.backup_id <= proof.backup_id:
                return
            if _verified(entry):
                found = self._inventory.look(BackupRef(entry.backup_id, entry.component))
                if not found.manifests and not found.problems and not self._inventory.unreachable:
                    yield entry.backup_id


def _verified(entry: CatalogEntry) -> bool:
    return entry.expired_at is None and any(
        level >= Level.INTACT for level in entry.levels.values()
    )
