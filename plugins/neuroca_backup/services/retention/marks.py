"""Tombstones and holds: writing and removing the objects that say whether a backup goes or stays.

Deletion and holds meet without a lock: whoever deletes writes its mark and then looks for holds,
whoever holds writes the hold and then looks for such a mark. So at least one of them sees the
other, and the one that deletes is the one that gives way.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from neuroca_backup.errors import (
    AlreadyExistsError,
    BackupError,
    NotFoundError,
    PermanentError,
    TransientError,
)
from neuroca_backup.model.identity import BackupRef
from neuroca_backup.model.retention import Hold, Tombstone
from neuroca_backup.services.inventory import (
    Inventory,
    holds,
    read_hold,
    read_tombstone,
)
from neuroca_backup.services.needs import needs_of
from neuroca_backup.stores import Store


def bury(stores: Mapping[str, Store], ref: BackupRef, tombstone: Tombstone) -> None:
    """Mark `ref` as to be deleted in every store that has it; a mark that is there stays.

    Raises:
        BackupError: A store's own.
    """
    for store in stores.values():
        if holds(store, ref):
            try:
                store.put(ref.tombstone_key, tombstone.encode(), create_only=True)
            except AlreadyExistsError:
                continue


def unbury(stores: Mapping[str, Store], ref: BackupRef) -> bool:
    """Take `ref` back in every store; return False, having done nothing, once deletion has begun.

    Raises:
        BackupError: A store's own, after all others were told.
    """
    if begun(stores, ref):
        return False
    _raise_first(_everywhere(stores, partial(_exhume, ref=ref)))
    return True


def hold(stores: Mapping[str, Store], ref: BackupRef, wanted: Hold) -> None:
    """Hold `ref` in every store that has it, in those that answer even where one does not.

    Raises:
        NotFoundError: No store that answers has it.
        AlreadyExistsError: It is held for longer already; that hold is left as it is.
        PermanentError: Its deletion has begun; it is not held.
        BackupError: A store's own, after all others were told: repeat it then.
    """
    written: list[str] = []
    longer: list[Hold] = []

    def look(store: Store) -> None:
        found = read_hold(store, ref)
        if found is not None and found.stands(wanted.held_at) and found.outlasts(wanted):
            longer.append(found)

    errors = _everywhere(stores, look)
    if longer:
        raise AlreadyExistsError(
            f"{ref.backup_id} is on hold by {longer[0].actor} for longer: {longer[0].reason}",
            remedy="It stays, so there is nothing to do; or release that hold first.",
            backup_id=ref.backup_id,
        )

    def write(store: Store) -> None:
        if holds(store, ref):
            store.put(ref.hold_key, wanted.encode())
            written.append(store.name)

    errors = _everywhere(stores, write)
    if not written:
        _raise_first(errors)
        raise NotFoundError(
            f"There is no backup {ref.backup_id} in {', '.join(stores)}",
            remedy="`neuroca-backup list` shows what there is.",
            backup_id=ref.backup_id,
        )
    if begun({name: stores[name] for name in written}, ref):
        release(stores, ref)
        raise PermanentError(
            f"{ref.backup_id} cannot be held: its deletion has begun",
            remedy="Hold a younger backup; `neuroca-backup list` shows what there is.",
            backup_id=ref.backup_id,
        )
    _raise_first(errors)


def release(stores: Mapping[str, Store], ref: BackupRef) -> bool:
    """Let go of `ref` in every store; return whether any of them held it.

    Raises:
        BackupError: A store's own, after all others were told.
    """
    found: list[str] = []

    def remove(store: Store) -> None:
        try:
            store.stat(ref.hold_key)
        except NotFoundError:
            return
        store.delete(ref.hold_key)
        found.append(store.name)

    _raise_first(_everywhere(stores, remove))
    return bool(found)


def held(stores: Mapping[str, Store]) -> Iterator[tuple[BackupRef, Hold]]:
    """Yield every hold there is, those that are over, too; each backup once, the newest first.

    Raises:
        BackupError: A store's own: a list with gaps would look like one without.
    """
    inventory = Inventory(stores)
    for component, source in inventory.sources():
        for found in inventory.newest_first(component, source):
            yield from ((found.ref, one) for one in holds_of(stores, found.ref)[:1])


def holds_of(stores: Mapping[str, Store], ref: BackupRef) -> Sequence[Hold]:
    """Return what holds `ref`, asked of every store anew.

    Raises:
        BackupError: A store's own.
    """
    found = [read_hold(store, ref) for store in stores.values()]
    return [one for one in found if one is not None]


def undelete(
    stores: Mapping[str, Store], ref: BackupRef, wanted: Hold
) -> tuple[Sequence[BackupRef], Sequence[BackupError]]:
    """Take `ref` back with all that it needs, and hold it so that it does not expire again.

    Returns what was taken back, the oldest first, and the errors of stores that could not be told.
    While any store holds the backup nothing of it is deleted anywhere, so those that answer are
    enough; repeat it for the others.

    Raises:
        NotFoundError: There is no such backup, or it has not expired.
        PermanentError: Its deletion has begun, or that of a backup which it needs.
        BackupError: No store could be told.
    """
    inventory = Inventory(stores)
    expired: list[BackupRef] = []
    for one in _with_all_it_needs(inventory, ref):
        listed = inventory.look(one)
        if any(mark.erasing_since is not None for mark in listed.tombstones.values()):
            raise PermanentError(
                f"{ref.backup_id} cannot be taken back: the deletion of {one.backup_id} has begun",
                remedy="Choose another backup; `neuroca-backup list` shows what there is.",
                backup_id=ref.backup_id,
            )
        if listed.expired:
            expired.append(one)
    if not expired:
        silent = "".join(f"; {why}" for why in inventory.unreachable.values())
        raise NotFoundError(
            f"{ref.backup_id} is not a backup that has expired{silent}",
            remedy="`neuroca-backup list` shows what there is; `neuroca-backup hold set` keeps a "
            "backup from expiring.",
            backup_id=ref.backup_id,
        )
    answering = {name: one for name, one in stores.items() if name not in inventory.unreachable}
    errors: list[BackupError] = []
    with contextlib.suppress(AlreadyExistsError):  # held for longer: so much the better
        hold(answering, ref, wanted)
    for one in sorted(expired):
        errors += _everywhere(stores, partial(_exhume, ref=one))
    return sorted(expired), errors


def begun(stores: Mapping[str, Store], ref: BackupRef) -> bool:
    """Return whether any store says that the deletion of `ref` has begun.

    Raises:
        BackupError: A store's own.
    """
    marks = [read_tombstone(store, ref) for store in stores.values()]
    return any(one is not None and one.erasing_since is not None for one in marks)


def _with_all_it_needs(inventory: Inventory, ref: BackupRef) -> Iterator[BackupRef]:
    """Yield `ref` and, transitively, every backup that it names."""
    ahead, seen = [ref], {ref}
    while ahead:
        one = ahead.pop()
        yield one
        for manifest in inventory.look(one).manifests.values():
            more = {BackupRef(found, ref.component) for found in needs_of(manifest)} - seen
            seen |= more
            ahead += more


def _exhume(store: Store, *, ref: BackupRef) -> None:
    store.delete(ref.tombstone_key)


def _everywhere(
    stores: Mapping[str, Store], work: Callable[[Store], None]
) -> Sequence[BackupError]:
    """Do `work` in every store, in the others too where it fails in one; return the errors."""
    errors: list[BackupError] = []
    for store in stores.values():
        try:
            store.check()  # a directory that is not mounted has no backup, and tells nobody
            work(store)
        except BackupError as error:
            errors.append(error)
    return errors


def _raise_first(errors: Sequence[BackupError]) -> None:
    """Raise one of `errors`; one that may pass must not be lost behind one that will not."""
    if errors:
        raise next((one for one in errors if isinstance(one, TransientError)), errors[0])
