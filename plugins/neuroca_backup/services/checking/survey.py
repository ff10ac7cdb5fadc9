"""The copies of one source as the stores show them, and what is known of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from neuroca_backup.errors import (
    ArchivedError,
    BackupError,
    ConfigurationError,
    DamagedError,
    NotFoundError,
    StoreUnavailableError,
)
from neuroca_backup.model.identity import BackupRef, Component
from neuroca_backup.model.manifest import Manifest
from neuroca_backup.model.status import Verification
from neuroca_backup.services.checking.planning import Copy, Last, Rules, State
from neuroca_backup.services.inventory import (
    Inventory,
    Listed,
    read_tombstone,
    read_verification,
)
from neuroca_backup.stores import ObjectStat, Store

# A backup has a copy in each of these; in a third store lies what somebody had copied there.
_REQUIRED = ("primary", "secondary")


@dataclass(slots=True)
class Survey:
    """The copies that there are or should be of one source; by store, why it could not tell."""

    copies: list[Copy] = field(default_factory=list)
    unknown: dict[str, BackupError] = field(default_factory=dict)


def survey(
    stores: Mapping[str, Store], component: Component, source: str, *, rules: Rules, now: datetime
) -> Survey:
    """Look at every backup of `source` that has not expired, in every store that answers.

    Raises nothing of a store's: what it answered is in `unknown`, and it is asked no more.
    """
    found = Survey()
    answering = dict(stores)
    refs: set[BackupRef] = set()
    for name, store in stores.items():
        try:
            store.check()
            refs |= set(_refs(store, component, source))
        except BackupError as error:
            found.unknown[name] = error
            del answering[name]
    inventory = Inventory(answering)
    for ref in sorted(refs, reverse=True):
        listed = inventory.look(ref)
        for name, why in inventory.unreachable.items():
            found.unknown.setdefault(name, StoreUnavailableError(why, remedy="It is tried again."))
        there = {name: one for name, one in answering.items() if name not in found.unknown}
        for name, store in there.items():
            try:
                copy = None if listed.expired else _copy(store, name, listed, there, rules, now)
            except BackupError as error:
                found.unknown[name] = error
                inventory.unreachable[name] = str(error)
                continue
            if copy is not None:
                found.copies.append(copy)
    return found


def _refs(store: Store, component: Component, source: str) -> Iterator[BackupRef]:
    for folder in store.folders(f"{component}/{source}"):
        try:
            ref = BackupRef(folder, component)
        except ConfigurationError:
            continue  # not ours; retention names it
        if ref.source == source:
            yield ref


def _copy(
    store: Store,
    name: str,
    listed: Listed,
    stores: Mapping[str, Store],
    rules: Rules,
    now: datetime,
) -> Copy | None:
    """Return the copy of a backup in one store, or None where none is there or should be."""
    ref = listed.ref
    since = max((one.finished_at for one in listed.manifests.values()), default=ref.time)
    manifest = listed.manifests.get(name)
    if manifest is not None:
        last = listed.verifications.get(name)
        return Copy(
            ref,
            name,
            size=manifest.stored_size,
            since=since,
            last=_last(last),
            state=State.ARCHIVED if _archived(store, manifest) else State.STORED,
        )
    # It was checked, so there was a manifest; and where it is deleted on purpose, a tombstone stays
    # until nothing else is left.
    last, checked = _beside(store, ref)
    if name in listed.problems:
        seen = _stat(store, ref.manifest_key)
        state = State.ARCHIVED if seen is not None and seen.archived else State.LOST
    elif checked and not any(_buried(one, ref) for one in stores.values()):
        state = State.LOST
    elif listed.manifests and name in _REQUIRED:
        state = State.LOST if now - since > rules.settling else State.COMING
    else:
        return None
    return Copy(ref, name, size=0, since=since, last=_last(last), state=state)


def _last(found: Verification | None) -> Last | None:
    if found is None:
        return None
    return Last(found.level, found.sound, found.checked_at, found.level_at)


def _beside(store: Store, ref: BackupRef) -> tuple[Verification | None, bool]:
    """Return the result of the last check, and whether there is one, readable or not."""
    try:
        found = read_verification(store, ref)
    except (ArchivedError, DamagedError):
        return None, True
    return found, found is not None


def _buried(store: Store, ref: BackupRef) -> bool:
    try:
        return read_tombstone(store, ref) is not None
    except (ArchivedError, DamagedError):
        return True


def _archived(store: Store, manifest: Manifest) -> bool:
    """Return whether the largest object is archived: what is small is not worth archiving.

    Where it is another one, reading it says so.
    """
    largest = max(manifest.members, key=lambda one: one.stored.size, default=None)
    seen = None if largest is None else _stat(store, manifest.key_of(largest))
    return seen is not None and seen.archived


def _stat(store: Store, key: str) -> ObjectStat | None:
    try:
        return store.stat(key)
    except NotFoundError:
        return None
