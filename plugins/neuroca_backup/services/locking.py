"""Locks: which objects a store is told not to delete, until when; nothing here shortens one.

A backup is locked with all that its restore reads, in its own folder and in those of the backups
that it continues or refers to. What changes after it was made stays free: results of checks, marks
of expiry and of holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import MAXYEAR, UTC, datetime, timedelta
from itertools import islice

from neuroca_backup.errors import PermanentError
from neuroca_backup.model.identity import BackupRef, Component
from neuroca_backup.model.manifest import Manifest
from neuroca_backup.services import needs, pipeline
from neuroca_backup.services.inventory import holds, read_manifest
from neuroca_backup.stores import Immutable, Locking, Store

_BATCH = 200  # objects looked at between two looks at what was found


class Locks:
    """Locks what backups need.

    Args:
        period: How long the store of that name keeps backups of a component.
        workers: Objects locked at once.
    """

    def __init__(self, *, period: Callable[[str, Component], timedelta], workers: int) -> None:
        self._period = period
        self._workers = workers

    def protect(self, store: Store, manifest: Manifest, *, standing: bool) -> None:
        """Have `store` refuse to delete what restoring the backup reads, until it is due.

        Does nothing where backup.yaml sets no lock for the store, and may be repeated. `standing`
        says whether the manifest is there already.

        Raises:
            NotFoundError: An object that the backup needs is not there.
            BackupError: A store's own.
        """
        if not isinstance(store, Immutable) or store.lock_margin is None:
            return
        kept = self._period(store.name, manifest.component)
        until = manifest.started_at + kept + store.lock_margin
        keys = set(_needed(store, manifest))
        if not standing:
            keys.discard(manifest.ref.manifest_key)
        pipeline.in_parallel(
            lambda key: store.retain(key, until=until), sorted(keys), workers=self._workers
        )


def hold(stores: Mapping[str, Store], ref: BackupRef, *, workers: int) -> None:
    """Put a legal hold on all that restoring `ref` reads, in the stores that lock.

    Who may only delete and bypass governance cannot undo it: it takes s3:PutObjectLegalHold.

    Raises:
        BackupError: A store's own; repeated, it goes on.
    """
    for store in _locking(stores):
        if holds(store, ref):
            _set(
                store, _needed(store, read_manifest(store, ref).manifest), on=True, workers=workers
            )


def release(
    stores: Mapping[str, Store], ref: BackupRef, *, others: Iterable[BackupRef], workers: int
) -> None:
    """End the legal holds on what `ref` needs, but for what the `others`, still held, need.

    Raises:
        BackupError: A store's own; repeated, it goes on.
    """
    held = list(others)
    for store in _locking(stores):
        if not holds(store, ref):
            continue
        keys = set(_needed(store, read_manifest(store, ref).manifest))
        for other in held:
            if holds(store, other):
                keys -= set(_needed(store, read_manifest(store, other).manifest))
        _set(store, keys, on=False, workers=workers)


def require_free(stores: Mapping[str, Store], prefix: str, *, now: datetime, workers: int) -> None:
    """Raise unless every object below `prefix` may be deleted: none goes while another cannot.

    Raises:
        PermanentError: An object is locked; says where and until when.
        BackupError: A store's own.
    """
    for store in stores.values():
        found = locked(store, prefix, now=now, workers=workers)
        if found is not None:
            key, until = found
            raise PermanentError(
                f"Nothing of {prefix} is deleted, because {key} is {words(until, store.name)}",
                remedy="The store itself refuses to delete it before. Release the hold, or wait.",
                key=key,
                store=store.name,
            )


def words(until: datetime, store: str) -> str:
    """Return what a lock in `store` until `until` (aware) is called."""
    if until.year == MAXYEAR:
        return f"under a legal hold in {store}"
    return f"locked in {store} until {until.astimezone(UTC).strftime('%Y-%m-%d %H:%M UTC')}"


def locked(
    store: Store, prefix: str, *, now: datetime, workers: int
) -> tuple[str, datetime] | None:
    """Return an object below `prefix` that `store` refuses to delete, and until when; or None."""
    if not isinstance(store, Locking) or (isinstance(store, Immutable) and not store.locks()):
        return None

    def look(key: str) -> tuple[str, datetime] | None:
        until = store.locked_until(key)
        return (key, until) if until is not None and until > now else None

    keys = (one.key for one in store.list(prefix))
    while batch := list(islice(keys, _BATCH)):
        found = pipeline.in_parallel(look, batch, workers=workers)
        first = next((one for one in found if one is not None), None)
        if first is not None:
            return first
    return None


def _locking(stores: Mapping[str, Store]) -> Sequence[Immutable]:
    return [
        one for one in stores.values() if isinstance(one, Immutable) and one.lock_margin is not None
    ]


def _set(store: Immutable, keys: Iterable[str], *, on: bool, workers: int) -> None:
    pipeline.in_parallel(lambda key: store.hold(key, on=on), sorted(set(keys)), workers=workers)


def _needed(store: Store, manifest: Manifest) -> Iterable[str]:
    """Yield the keys of all that restoring the backup from `store` reads, its chain included."""
    link: Manifest | None = manifest
    while link is not None:
        yield from needs.objects(link)
        older = link.parent is not None and link.parent < link.backup_id
        ref = BackupRef(str(link.parent), link.component) if older else None
        link = read_manifest(store, ref).manifest if ref is not None else None
