"""What the stores hold of one source, read for a decision about deletion: all of it, or why not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from neuroca_backup.errors import BackupError, ConfigurationError, TransientError
from neuroca_backup.model.identity import BackupRef, Component, is_source_name
from neuroca_backup.model.retention import Hold, Tombstone
from neuroca_backup.services import needs, pipeline
from neuroca_backup.services.inventory import Inventory, Listed, read_hold, read_tombstone
from neuroca_backup.services.retention.planning import Record, Rules
from neuroca_backup.stores import Locking, Store


@dataclass(slots=True)
class Survey:
    """The backups of one source in all stores.

    `unknown` are sentences about what could not be read, each of which stops every deletion;
    `transient` tells whether all of it may pass. `referenced` are backup id and attempt of what
    later backups refer to, whether it still has a manifest or not.
    """

    component: Component
    source: str
    records: list[Record] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    transient: bool = True
    referenced: set[tuple[str, str]] = field(default_factory=set)

    def failed(self, store: str, error: BackupError) -> None:
        """Note that something could not be read."""
        self.unknown.append(f"{store}: {error.problem}")
        self.transient = self.transient and isinstance(error, TransientError)


def survey(
    stores: Mapping[str, Store],
    component: Component,
    source: str,
    *,
    rules: Rules,
    now: datetime,
    workers: int,
) -> Survey:
    """Read all backups of `source` in every store, `workers` at once; errors are in the result.

    Raises nothing of a store's: a store that does not answer is something unknown.
    """
    found = Survey(component, source)
    _require_all(stores, found)
    refs = [] if found.unknown else _refs(stores, found)
    inventory = Inventory(stores)

    def read(ref: BackupRef) -> Survey:
        seen = Survey(component, source)
        if not inventory.unreachable:  # each further backup would wait for the dead store again
            listed = inventory.look(ref)
            for store, why in listed.problems.items():
                seen.unknown.append(f"{store}: {why}")
                seen.transient = seen.transient and store in inventory.unreachable
            _read(stores, listed, seen, rules=rules, now=now)
        return seen

    for seen in pipeline.in_parallel(read, refs, workers=workers):
        found.records += seen.records
        found.unknown += seen.unknown
        found.transient = found.transient and seen.transient
        found.referenced |= seen.referenced
    if refs:
        # A store that was unmounted half way has shown some backups and hidden others.
        _require_all(stores, found)
    return found


def sources(stores: Mapping[str, Store]) -> Sequence[tuple[Component, str]]:
    """Return every component and source that any store has anything of.

    Raises:
        BackupError: A store's own; all of them have to answer.
    """
    for store in stores.values():
        store.check()
    return sorted(
        {
            (component, source)
            for component in Component
            for store in stores.values()
            for source in store.folders(component.value)
            if is_source_name(source)
        }
    )


def _require_all(stores: Mapping[str, Store], found: Survey) -> None:
    for name, store in stores.items():
        try:
            store.check()
        except BackupError as error:
            found.failed(name, error)


def _refs(stores: Mapping[str, Store], found: Survey) -> Sequence[BackupRef]:
    """Return everything that any store has a folder of, the oldest first."""
    refs: set[BackupRef] = set()
    for name, store in stores.items():
        try:
            folders = list(store.folders(f"{found.component}/{found.source}"))
        except BackupError as error:
            found.failed(name, error)
            continue
        for folder in folders:
            try:
                ref = BackupRef(folder, found.component)
            except ConfigurationError:
                continue  # not ours; sweeping names it
            if ref.source == found.source:
                refs.add(ref)
    return sorted(refs)


def _read(
    stores: Mapping[str, Store], listed: Listed, seen: Survey, *, rules: Rules, now: datetime
) -> None:
    """Add one backup to `seen`, and what later ones would lose with it."""
    ref, manifests = listed.ref, list(listed.manifests.values())
    tombstones: dict[str, Tombstone] = dict(listed.tombstones)
    holds: list[Hold] = []
    locked: dict[str, datetime] = {}
    started_at = max((one.started_at for one in manifests), default=ref.time)
    old = started_at + rules.kept[ref.component] <= now
    for name, store in stores.items():
        try:
            tombstone = None if name in tombstones else read_tombstone(store, ref)
            hold = read_hold(store, ref)
            until = _lock(store, ref) if old and name in listed.manifests else None
        except BackupError as error:
            seen.failed(name, error)
            continue
        if tombstone is not None:
            tombstones[name] = tombstone
        if hold is not None:
            holds.append(hold)
        if until is not None:
            locked[name] = until
    for manifest in manifests:
        seen.referenced.update(
            (member.origin.backup_id, member.origin.attempt)
            for member in manifest.members
            if member.origin is not None
        )
    if not manifests and not any(one.erasing_since for one in tombstones.values()):
        return  # no backup, and not the rest of one
    seen.records.append(
        Record(
            ref=ref,
            started_at=started_at,
            stores=frozenset(listed.manifests),
            sound=frozenset(name for name in listed.manifests if listed.sound_in(name)),
            damaged=listed.damaged,
            parent=next((one.parent for one in manifests), None),
            full=all(one.kind == "full" for one in manifests),
            names=frozenset[str]().union(*(needs.needs_of(one) for one in manifests)),
            attempts=frozenset(one.attempt for one in manifests),
            before_restore=any(one.before_restore for one in manifests),
            holds=tuple(holds),
            pinned=any(one.hold for one in manifests),
            locked=locked,
            tombstones=tombstones,
            size=max((one.own_size for one in manifests), default=0),
        )
    )


def _lock(store: Store, ref: BackupRef) -> datetime | None:
    return store.locked_until(ref.manifest_key) if isinstance(store, Locking) else None
