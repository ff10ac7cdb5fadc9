"""Deleting one backup from every store, in an order that leaves garbage at worst.

First every store is told that the deletion has begun; then, store by store, the keys go, so that
nothing can be read any more, the manifest, the members and what lies beside; the tombstones go
last. Killed at any point, the marks that are left tell the next run to go on.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from itertools import groupby, islice

from neuroca_backup.errors import NotFoundError, StoreUnavailableError
from neuroca_backup.model.identity import BackupRef
from neuroca_backup.model.retention import Tombstone
from neuroca_backup.services import locking, pipeline
from neuroca_backup.services.inventory import read_tombstone
from neuroca_backup.services.retention import marks
from neuroca_backup.stores import ObjectStat, Store, Versioning

log = logging.getLogger(__name__)

_ATTEMPT = re.compile(r"(?P<attempt>[0-9a-f]{8})/(keys\.json|members/.+)")
_BATCH = 200  # objects deleted at once: their names are all that is kept of them


def attempt_of(ref: BackupRef, key: str) -> str | None:
    """Return the attempt that the object `key` belongs to; None for any other object."""
    match = _ATTEMPT.fullmatch(key.removeprefix(f"{ref.prefix}/"))
    return match["attempt"] if match is not None and key.startswith(f"{ref.prefix}/") else None


def beside(ref: BackupRef) -> frozenset[str]:
    """Return the keys of the objects that can lie beside the attempts of a backup."""
    return frozenset(
        {
            ref.manifest_key,
            ref.verification_key,
            ref.checked_key,
            ref.hold_key,
            ref.tombstone_key,
        }
    )


def erase(
    stores: Mapping[str, Store],
    ref: BackupRef,
    *,
    begun: Tombstone,
    now: datetime,
    workers: int,
    before_first: Callable[[], None],
    before_last: Callable[[], None],
) -> bool:
    """Delete `ref` everywhere; return False, with nothing deleted, where somebody holds it.

    `begun` is the tombstone that says since when it is being deleted. `before_first` is called when
    nobody can stop it any more and nothing is gone yet, `before_last` when all but the tombstones
    is gone: what they do is done again if it is interrupted.

    Raises:
        PermanentError: A store refuses to delete some object of it; nothing was touched.
        StoreUnavailableError: Something was written meanwhile; the next run deletes that, too.
        BackupError: A store's own; the next run goes on.
    """
    locking.require_free(stores, ref.prefix, now=now, workers=workers)
    before = {name: read_tombstone(store, ref) for name, store in stores.items()}
    marked = [name for name, store in stores.items() if _any(store, ref)]
    for name in marked:
        stores[name].put(ref.tombstone_key, begun.encode())
    if any(one.stands(now) for one in marks.holds_of(stores, ref)):
        _give_way(stores, ref, before)
        return False
    before_first()
    for name in marked:
        _erase_in(stores[name], ref, workers=workers)
    before_last()
    for name in marked:
        stores[name].delete(ref.tombstone_key)
    return True


def delete_all(store: Store, found: Iterator[ObjectStat], *, workers: int) -> tuple[int, int]:
    """Delete the objects `found`, many at once; return how many there were, and their bytes."""
    count = size = 0
    while batch := list(islice(found, _BATCH)):
        pipeline.in_parallel(lambda one: store.delete(one.key), batch, workers=workers)
        count += len(batch)
        size += sum(one.size for one in batch)
    return count, size


def _give_way(
    stores: Mapping[str, Store], ref: BackupRef, before: Mapping[str, Tombstone | None]
) -> None:
    """Put the tombstones back as they were: a hold came in time."""
    log.warning("%s is not deleted: it was put on hold a moment ago", ref.backup_id)
    for name, tombstone in before.items():
        if tombstone is None:
            stores[name].delete(ref.tombstone_key)
        else:
            stores[name].put(ref.tombstone_key, tombstone.encode())


def _erase_in(store: Store, ref: BackupRef, *, workers: int) -> None:
    keys = {ref.keys_key(attempt) for attempt in store.folders(ref.prefix)}
    keys |= {key for key in _kept(store, ref) if key.endswith("/keys.json")}
    for key in sorted(keys):
        if attempt_of(ref, key) is not None:
            store.delete(key)
    store.delete(ref.manifest_key)
    members = (one for one in store.list(ref.prefix) if attempt_of(ref, one.key) is not None)
    delete_all(store, members, workers=workers)
    for key in _kept(store, ref):
        if attempt_of(ref, key) is not None:
            store.delete(key)
    for key in sorted(beside(ref) - {ref.tombstone_key}):
        store.delete(key)
    left = next((one.key for one in _ours(store, ref)), None)
    if left is not None:
        raise StoreUnavailableError(
            f"{store.name}: {left} was written while {ref.backup_id} was being deleted",
            remedy="The next run deletes it. Do not verify or replicate an expired backup.",
            key=left,
        )


def _kept(store: Store, ref: BackupRef) -> Iterator[str]:
    """Yield the keys of a backup that have versions, also where somebody has deleted the object."""
    if isinstance(store, Versioning):
        yield from (key for key, _ in groupby(one.key for one in store.versions(ref.prefix)))


def _ours(store: Store, ref: BackupRef) -> Iterator[ObjectStat]:
    """Yield what is left of a backup in a store but its tombstone; what is not ours is no part."""
    expected = beside(ref) - {ref.tombstone_key}
    for found in store.list(ref.prefix):
        if found.key in expected or attempt_of(ref, found.key) is not None:
            yield found


def _any(store: Store, ref: BackupRef) -> bool:
    """Return whether `store` has any object of `ref`, its tombstone included."""
    try:
        store.stat(ref.tombstone_key)
    except NotFoundError:
        return next(_ours(store, ref), None) is not None
    return True
