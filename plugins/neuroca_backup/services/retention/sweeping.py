"""Removing what never became a backup, or is left of none; what is not ours is only named."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from typing import Any

from neuroca_backup.errors import ConfigurationError
from neuroca_backup.model.backup_set import PREFIX as SETS
from neuroca_backup.model.backup_set import key_of
from neuroca_backup.model.identity import BackupRef, Component
from neuroca_backup.model.recovery import PREFIX as RECOVERIES
from neuroca_backup.model.recovery import is_recovery_key
from neuroca_backup.services.inventory import holds, read_manifest
from neuroca_backup.services.retention import erasing
from neuroca_backup.services.retention.planning import Record, Rules
from neuroca_backup.services.retention.survey import Survey
from neuroca_backup.services.sets import ListedSet, Sets
from neuroca_backup.stores import ObjectStat, Store

log = logging.getLogger(__name__)

_STRANGERS_TOLD = 20


@dataclass(slots=True)
class Swept:
    """What a sweep removed, and what it left alone.

    `size` is in bytes. `strangers` are the first twenty objects that are not of the layout,
    `strange` how many there are. `skipped` says of which sources nothing was removed, and why.
    """

    objects: int = 0
    size: int = 0
    uploads: int = 0
    sets: int = 0
    strange: int = 0
    strangers: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Attempt:
    """The objects of one attempt in one store; `newest` is when the last one was written."""

    newest: datetime
    count: int = 0

    def add(self, found: ObjectStat) -> None:
        self.newest = max(self.newest, found.modified)
        self.count += 1


class Sweeper:
    """One sweep over all stores.

    Args:
        stores: Every configured store.
        rules: Of which `leftovers` is how old something must be, `kept` how old an empty set.
        now: The time (aware) of this sweep.
        survey: Reads the backups of a source from all stores.
        workers: Objects deleted at once.
        note: Is told of everything that is removed: its place, and facts about it.
    """

    def __init__(
        self,
        *,
        stores: Mapping[str, Store],
        rules: Rules,
        now: datetime,
        survey: Callable[[Component, str], Survey],
        workers: int,
        note: Callable[[str, Mapping[str, Any]], None],
    ) -> None:
        self._stores = stores
        self._rules = rules
        self._now = now
        self._survey = survey
        self._workers = workers
        self._note = note
        self._surveys: dict[tuple[Component, str], Survey] = {}
        self._records: dict[BackupRef, Record] = {}
        self._swept = Swept()

    def sweep(self) -> Swept:
        """Remove stale uploads, leftovers of attempts, and sets whose backups are all gone.

        Raises:
            BackupError: A store's own.
        """
        for store in self._stores.values():
            store.check()
        for name, store in self._stores.items():
            uploads = store.sweep_uploads(older_than=self._rules.leftovers)
            if uploads:
                self._note(name, {"uploads": uploads})
            self._swept.uploads += uploads
            for place, found in groupby(store.list(), key=_place):
                if isinstance(place, BackupRef):
                    self._folder(store, place, found)
                elif place not in {SETS, RECOVERIES}:
                    self._name_strangers(store, found)
        for component in Component:
            self._sets_of(component)
        for (component, source), seen in self._surveys.items():
            if seen.unknown:
                self._swept.skipped.append(f"{component}/{source}: {'; '.join(seen.unknown[:3])}")
        return self._swept

    def _folder(self, store: Store, ref: BackupRef, found: Iterable[ObjectStat]) -> None:
        """Look at all that one store has of one backup; remove what no manifest stands for."""
        attempts: dict[str, _Attempt] = {}
        lying: dict[str, datetime] = {}
        expected = erasing.beside(ref)
        for one in found:
            attempt = erasing.attempt_of(ref, one.key)
            if attempt is not None:
                attempts.setdefault(attempt, _Attempt(one.modified)).add(one)
            elif one.key in expected:
                lying[one.key] = one.modified
            else:
                self._name_strangers(store, [one])
        seen = self._of(ref.component, ref.source)
        if seen.unknown or ref.hold_key in lying or self._young(ref.time):
            return
        record = self._records.get(ref)
        if record is None and ref.manifest_key in lying:
            return  # it was written a moment ago
        if record is not None and record.erasing:
            return  # its deletion goes on at the next run
        # An attempt stays that a manifest in any store names: it may be the last good copy.
        kept = record.attempts if record is not None else frozenset[str]()
        needed = {attempt for attempt in attempts if (ref.backup_id, attempt) in seen.referenced}
        for attempt in attempts.keys() - kept - needed:
            if not self._young(attempts[attempt].newest):
                self._remove_attempt(store, ref, attempt)
        if record is None and not needed and not any(map(self._young, lying.values())):
            self._remove_beside(store, ref, lying)

    def _remove_attempt(self, store: Store, ref: BackupRef, attempt: str) -> None:
        prefix = f"{ref.prefix}/{attempt}"
        for other in self._stores.values():
            # Between the survey and now its manifest may have come.
            if holds(other, ref) and read_manifest(other, ref).manifest.attempt == attempt:
                return
        store.delete(ref.keys_key(attempt))
        ours = (one for one in store.list(prefix) if erasing.attempt_of(ref, one.key) == attempt)
        count, size = erasing.delete_all(store, ours, workers=self._workers)
        log.info("%s: removed %s, which never became a backup", store.name, prefix)
        self._note(prefix, {"store": store.name, "objects": count, "bytes": size})
        self._swept.objects += count
        self._swept.size += size

    def _remove_beside(self, store: Store, ref: BackupRef, lying: Mapping[str, datetime]) -> None:
        if not lying or any(holds(one, ref) for one in self._stores.values()):
            return
        for key in sorted(lying):
            store.delete(key)
        log.info("%s: removed what lay beside %s, which is gone", store.name, ref.backup_id)
        self._note(ref.prefix, {"store": store.name, "objects": len(lying)})
        self._swept.objects += len(lying)

    def _sets_of(self, component: Component) -> None:
        """Remove the sets of which no backup is left; a damaged one is left alone and named."""
        surveys = [
            self._of(component, source)
            for source in sorted({s for st in self._stores.values() for s in st.folders(component)})
        ]
        if any(one.unknown for one in surveys):
            return
        there = {record.backup_id for one in surveys for record in one.records}
        runs = {record.ref.set_id for one in surveys for record in one.records}
        sets = Sets(self._stores)
        for listed in sets.newest_first(component):
            if sets.unreachable:
                return
            if listed.set_id in runs or not self._over(listed, there):
                continue
            for store in self._stores.values():
                store.delete(key_of(component, listed.set_id))
            log.info("Removed the set %s of %s: its backups are gone", listed.set_id, component)
            self._note(key_of(component, listed.set_id), {"set": listed.set_id})
            self._swept.sets += 1

    def _over(self, listed: ListedSet, there: set[str]) -> bool:
        if listed.problems or listed.found is None:
            for store, why in listed.problems.items():
                self._swept.skipped.append(f"{store}: {why}")
            return False
        found = listed.found
        if self._young(found.recorded_at):
            return False
        if not found.members:
            return found.recorded_at + self._rules.kept[found.component] <= self._now
        return all(member.backup_id not in there for member in found.members.values())

    def _of(self, component: Component, source: str) -> Survey:
        """Return the survey of a source, read once a sweep; its records are small."""
        key = (component, source)
        if key not in self._surveys:
            self._surveys[key] = seen = self._survey(component, source)
            self._records.update((record.ref, record) for record in seen.records)
        return self._surveys[key]

    def _young(self, moment: datetime) -> bool:
        return self._now - moment < self._rules.leftovers

    def _name_strangers(self, store: Store, found: Iterable[ObjectStat]) -> None:
        for one in found:
            self._swept.strange += 1
            if len(self._swept.strangers) < _STRANGERS_TOLD:
                self._swept.strangers.append(f"{store.name}: {one.key}")


def _place(found: ObjectStat) -> BackupRef | str:
    """Return the backup under whose prefix an object lies, its folder, or "" for a stranger."""
    first, *rest = found.key.split("/")
    if first == RECOVERIES:
        return RECOVERIES if is_recovery_key(found.key) else ""
    if first == SETS:
        component, _, name = "/".join(rest).partition("/")
        known = component in set(Component) and name.endswith(".json") and "/" not in name
        return SETS if known else ""
    try:
        ref = BackupRef(rest[1], Component(first))
    except (IndexError, ValueError, ConfigurationError):
        return ""
    return ref if len(rest) > 2 and ref.source == rest[0] else ""
