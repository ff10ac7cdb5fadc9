"""Erasure that can be proven: what is destroyed is written down before, and looked for after."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping
from datetime import datetime

from neuroca_backup.errors import (
    DamagedError,
    NotFoundError,
    PermanentError,
    StoreUnavailableError,
)
from neuroca_backup.keyring.keys_document import KeysDocument
from neuroca_backup.model.erasure import DestroyedKeys, Erasure, key_of
from neuroca_backup.model.identity import BackupRef
from neuroca_backup.services.retention.erasing import attempt_of, beside
from neuroca_backup.stores import Store, Versioning

log = logging.getLogger(__name__)


def begin(
    stores: Mapping[str, Store], ref: BackupRef, *, reason: str, actor: str, now: datetime
) -> Erasure:
    """Write into every store what is about to be destroyed; what an earlier try wrote is kept.

    After it, keys may be destroyed: a try that is killed leaves in the stores what they were.

    Raises:
        BackupError: A store's own; nothing was destroyed.
    """
    earlier = [one for store in stores.values() if (one := read(store, ref)) is not None]
    known = {(one.store, one.key): one for found in earlier for one in found.keys}
    for name, store in stores.items():
        for found in _keys(store, ref):
            known.setdefault((name, found.key), found.model_copy(update={"store": name}))
    first = min(earlier, key=lambda one: one.begun_at, default=None)
    begun = Erasure(
        backup_id=ref.backup_id,
        component=ref.component,
        reason=first.reason if first else reason,
        actor=first.actor if first else actor,
        begun_at=first.begun_at if first else now,
        stores=tuple(stores),
        keys=tuple(known[place] for place in sorted(known)),
    )
    _write(stores, ref, begun)
    return begun


def complete(stores: Mapping[str, Store], ref: BackupRef, *, now: datetime) -> tuple[Erasure, str]:
    """Look that no version of any key is left; return the certificate and its digest (hex).

    Raises:
        StoreUnavailableError: Something is left: there is no certificate.
        BackupError: A store's own.
    """
    for store in stores.values():
        left = next(iter(remains(store, ref)), None)
        if left is not None:
            raise StoreUnavailableError(
                f"{store.name}: {left} is still there, so {ref.backup_id} is not erased",
                remedy="The erasure goes on at the next run of retention; until then there is no "
                "certificate.",
                key=left,
            )
    begun = next((one for store in stores.values() if (one := read(store, ref))), None)
    if begun is None:
        raise PermanentError(
            f"Nobody wrote down what was destroyed of {ref.backup_id}, so nothing is certified",
            remedy="Look into the audit trail for who removed it.",
            backup_id=ref.backup_id,
        )
    certificate = begun if begun.completed_at else begun.completed(now)
    _write(stores, ref, certificate)
    return certificate, hashlib.sha256(certificate.encode()).hexdigest()


def withdraw(stores: Mapping[str, Store], ref: BackupRef) -> None:
    """Remove what `begin` wrote, where nothing was destroyed after all."""
    for store in stores.values():
        found = read(store, ref)
        if found is not None and found.completed_at is None:
            store.delete(key_of(ref))


def read(store: Store, ref: BackupRef) -> Erasure | None:
    """Return what a store says of the erasure of `ref`, or None.

    Raises:
        DamagedError: It is not what was written.
        BackupError: The store's own.
    """
    try:
        data = store.get(key_of(ref))
    except NotFoundError:
        return None
    return Erasure.decode(data, name=f"{store.name}:{key_of(ref)}", ref=ref)


def remains(store: Store, ref: BackupRef) -> Iterator[str]:
    """Yield what is left of `ref` but its tombstone: objects, and versions that nobody sees."""
    for key in _every_key(store, ref):
        if attempt_of(ref, key) is not None or key in beside(ref) - {ref.tombstone_key}:
            yield key


def _keys(store: Store, ref: BackupRef) -> Iterator[DestroyedKeys]:
    """Yield every keys.json that a store has of a backup, also where only old versions are left."""
    counted: dict[str, int] = {}
    for key in _every_key(store, ref):
        if attempt_of(ref, key) is not None and key.endswith("/keys.json"):
            counted[key] = counted.get(key, 0) + 1
    for key, versions in sorted(counted.items()):
        digest, recipients = _described(store, key)
        yield DestroyedKeys(
            store=store.name,
            location=store.location,
            key=key,
            sha256=digest,
            recipients=recipients,
            versions=versions,
        )


def _described(store: Store, key: str) -> tuple[str, tuple[str, ...]]:
    try:
        data = store.get(key)
    except NotFoundError:
        return "", ()
    digest = hashlib.sha256(data).hexdigest()
    try:
        found = KeysDocument.decode(data, name=key)
    except DamagedError:
        return digest, ()
    return digest, tuple(one.label for one in found.recipients)


def _every_key(store: Store, ref: BackupRef) -> Iterator[str]:
    """Yield the key of every version of every object of a backup, once for each version."""
    if isinstance(store, Versioning):
        return (one.key for one in store.versions(ref.prefix))
    return (one.key for one in store.list(ref.prefix))


def _write(stores: Mapping[str, Store], ref: BackupRef, found: Erasure) -> None:
    data = found.encode()
    for store in stores.values():
        store.put(key_of(ref), data)
