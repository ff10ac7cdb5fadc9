"""Copies of a backup: in each store the manifest comes last, and one of several attempts stands."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from neuroca_backup.errors import AlreadyExistsError, BackupError, DamagedError
from neuroca_backup.model.identity import BackupRef
from neuroca_backup.model.manifest import Manifest, Member, SealedManifest
from neuroca_backup.services import pipeline
from neuroca_backup.services.inventory import holds, read_keys, read_manifest
from neuroca_backup.services.ledger import Ledger, timed
from neuroca_backup.stores import Store
from neuroca_backup.streams import DigestReader, copy

log = logging.getLogger(__name__)


class Copies:
    """Puts backups into stores.

    Args:
        stores: All stores by name; the first is the primary.
        ledger: Where copies and durations are noted.
        workers: Members copied at once.
    """

    def __init__(self, *, stores: Mapping[str, Store], ledger: Ledger, workers: int) -> None:
        self._primary, *self._others = stores.values()
        self._ledger = ledger
        self._workers = workers

    def replicate(self, ref: BackupRef) -> Manifest:
        """Copy the backup from the primary to every other store; return its manifest.

        Bytes that pass through here are checked against the manifest, so damage in the primary is
        not spread.
        """
        sealed = read_manifest(self._primary, ref)
        # What an attempt that was killed has left is no part of the backup.
        self.discard(self._primary, ref, lambda attempt: attempt != sealed.manifest.attempt)
        for store in self._others:
            if holds(store, ref):
                standing = read_manifest(store, ref).manifest
                self._note_copy(standing, store)
            else:
                standing = self._copy(sealed, store)
            if standing.attempt != sealed.manifest.attempt:
                raise DamagedError(
                    f"{store.name} holds attempt {standing.attempt} of {ref.backup_id}, "
                    f"{self._primary.name} holds {sealed.manifest.attempt}: they are no copies",
                    remedy="Both can be restored on their own. Take a new backup, and find out "
                    "who removed the first one from the primary.",
                    backup_id=ref.backup_id,
                    store=store.name,
                )
        return sealed.manifest

    def commit(self, store: Store, sealed: SealedManifest) -> Manifest:
        """Write the manifest, create-only, after all else; return the manifest that stands."""
        ours, ref = sealed.manifest, sealed.manifest.ref
        try:
            store.put(ref.manifest_key, sealed.encode(), create_only=True)
        except AlreadyExistsError:
            winner = read_manifest(store, ref).manifest
            log.warning(
                "%s: attempt %s was first, this attempt %s is withdrawn",
                ref.backup_id,
                winner.attempt,
                ours.attempt,
            )
        else:
            winner = ours
        self.discard(store, ref, lambda attempt: attempt != winner.attempt)
        self._note_copy(winner, store)
        return winner

    def discard(self, store: Store, ref: BackupRef, doomed: Callable[[str], bool]) -> None:
        """Delete the objects of attempts that did not become the backup."""
        try:
            for attempt in list(store.folders(ref.prefix)):
                if doomed(attempt):
                    for found in store.list(f"{ref.prefix}/{attempt}"):
                        store.delete(found.key)
        except BackupError as error:
            # Garbage without a manifest is no backup; it must not fail one that is complete.
            log.warning("%s: leftovers stay in %s: %s", ref.backup_id, store.name, error)

    def stored(self, ref: BackupRef) -> bool:
        """Return whether the primary store has the backup."""
        return holds(self._primary, ref)

    def _note_copy(self, manifest: Manifest, store: Store) -> None:
        self._ledger.note(
            f"{manifest.backup_id} in {store.name}",
            lambda catalog: catalog.record_backup(manifest, store=store.name),
        )

    def _copy(self, sealed: SealedManifest, store: Store) -> Manifest:
        manifest, ref = sealed.manifest, sealed.manifest.ref
        with timed(self._ledger, ref, "replicate", total=manifest.stored_size) as progress:

            def one(member: Member) -> None:
                key = manifest.key_of(member)
                if store.copy_from(self._primary, key):
                    progress.add(member.stored.size)
                    return
                with self._primary.reader(key) as raw, store.writer(key) as out:
                    reader = DigestReader(
                        raw, expected=member.stored, name=key, store=self._primary.name
                    )
                    copy(reader, out, on_bytes=progress.add)

            pipeline.in_parallel(one, manifest.members, workers=self._workers)
            keys = read_keys(self._primary, manifest)
            store.put(ref.keys_key(manifest.attempt), keys.encode())
            return self.commit(store, sealed)
