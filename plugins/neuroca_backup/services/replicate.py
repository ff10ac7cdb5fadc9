"""Copies of a backup: in each store the manifest comes last, and one of several attempts stands."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress

from neuroca_backup.errors import (
    AlreadyExistsError,
    BackupError,
    ChainBrokenError,
    ConfigurationError,
    DamagedError,
)
from neuroca_backup.model.identity import BackupRef, Component
from neuroca_backup.model.manifest import Digest, Manifest, Member, SealedManifest
from neuroca_backup.services import archiving, pipeline
from neuroca_backup.services.archiving import TERTIARY
from neuroca_backup.services.inventory import holds, keys_at, read_keys, read_manifest
from neuroca_backup.services.ledger import Ledger, timed
from neuroca_backup.services.locking import Locks
from neuroca_backup.services.progress import Progress
from neuroca_backup.settings import Copying
from neuroca_backup.stores import Store
from neuroca_backup.streams import DigestReader, copy

log = logging.getLogger(__name__)


class Copies:
    """Puts backups into stores.

    Args:
        stores: All stores by name; the first is the primary.
        ledger: Where copies and durations are noted.
        workers: Members copied at once.
        archive: Which backups of a component go to the tertiary store, if there is one.
        locks: Has stores refuse to delete what a backup needs.
    """

    def __init__(
        self,
        *,
        stores: Mapping[str, Store],
        ledger: Ledger,
        workers: int,
        archive: Callable[[Component], Copying] = lambda _: Copying.ALL,
        locks: Locks | None = None,
    ) -> None:
        self._locks = locks
        self._primary, *self._others = (one for n, one in stores.items() if n != TERTIARY)
        self._tertiary = stores.get(TERTIARY)
        self._archive = archive
        self._ledger = ledger
        self._workers = workers

    def replicate(self, ref: BackupRef) -> Manifest:
        """Copy the backup from the primary to every other store; return its manifest.

        The tertiary store gets chosen ones, each with all that it needs to be restored from there.

        Bytes that pass through here are checked against the manifest, so damage in the primary is
        not spread.
        """
        sealed = read_manifest(self._primary, ref)
        # What an attempt that was killed has left is no part of the backup.
        self.discard(self._primary, ref, lambda attempt: attempt != sealed.manifest.attempt)
        self._protect(self._primary, sealed.manifest, standing=True)
        for store in self._others:
            self._copied(sealed, store)
        if self._tertiary is not None and self._chosen(sealed.manifest, self._tertiary):
            for link in self._chain(sealed):
                self._copied(link, self._tertiary)
        return sealed.manifest

    def _copied(self, sealed: SealedManifest, store: Store) -> None:
        """See to it that `store` has the backup, and that what it has is this one."""
        ref = sealed.manifest.ref
        if holds(store, ref):
            standing = read_manifest(store, ref).manifest
            self._protect(store, standing, standing=True)
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

    def _chosen(self, manifest: Manifest, store: Store) -> bool:
        """Return whether the tertiary store is to have this backup."""
        how = self._archive(manifest.component)
        standing: list[BackupRef] = []
        if how not in {Copying.ALL, Copying.NONE}:
            for name in store.folders(f"{manifest.component}/{manifest.source}"):
                with suppress(ConfigurationError):  # not ours; sweeping names it
                    other = BackupRef(name, manifest.component)
                    # Only those that are due at the same time are asked for.
                    if not archiving.wanted(manifest, [other], how=how) and holds(store, other):
                        standing.append(other)
        return archiving.wanted(manifest, standing, how=how)

    def _chain(self, sealed: SealedManifest) -> Sequence[SealedManifest]:
        """Return what restoring the backup needs, the full one first, as the primary has it."""
        chain = [sealed]
        while (parent := chain[0].manifest.parent) is not None:
            ref = BackupRef(parent, sealed.manifest.component)
            # Every parent is older, so this also ends a chain that bites its own tail.
            found = parent < chain[0].manifest.backup_id and holds(self._primary, ref)
            if not found:
                raise ChainBrokenError(
                    f"{sealed.manifest.backup_id} is not copied to the tertiary store: it needs "
                    f"{parent}, which {self._primary.name} does not have",
                    remedy="Take a full backup; that one is copied in its place.",
                    backup_id=sealed.manifest.backup_id,
                    link=parent,
                )
            chain.insert(0, read_manifest(self._primary, ref))
        return chain

    def commit(self, store: Store, sealed: SealedManifest) -> Manifest:
        """Write the manifest, create-only, after all else; return the manifest that stands.

        What it needs is locked before it, where the store locks: no backup stands without, and of
        an attempt that failed earlier everything can still be deleted.
        """
        ours, ref = sealed.manifest, sealed.manifest.ref
        self._protect(store, ours, standing=False)
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
            self._protect(store, ours, standing=True)
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

    def _protect(self, store: Store, manifest: Manifest, *, standing: bool) -> None:
        if self._locks is not None:
            self._locks.protect(store, manifest, standing=standing)

    def _note_copy(self, manifest: Manifest, store: Store) -> None:
        self._ledger.note(
            f"{manifest.backup_id} in {store.name}",
            lambda catalog: catalog.record_backup(manifest, store=store.name),
        )

    def require_origins(self, store: Store, manifest: Manifest) -> None:
        """Raise unless `store` has every object of earlier backups that the manifest refers to.

        Asked before the manifest is written: what it names might have been deleted meanwhile.

        Raises:
            DamagedError: Objects are missing or of another size; a repeat of the backup stores
                those members anew, as the earlier one does not verify any more.
        """
        missing = list(_lacking(store, manifest))
        if missing:
            raise DamagedError(
                f"{manifest.backup_id} refers to {len(missing)} objects of earlier backups that "
                f"{store.name} does not have whole, the first is {missing[0]}",
                remedy="Find out who deleted them, verify the earlier backup, then take a new one.",
                backup_id=manifest.backup_id,
                store=store.name,
                key=missing[0],
            )

    def _copy(self, sealed: SealedManifest, store: Store) -> Manifest:
        manifest, ref = sealed.manifest, sealed.manifest.ref
        with timed(self._ledger, ref, "replicate", total=manifest.own_size) as progress:

            def one(member: Member) -> None:
                self._copy_object(store, manifest.key_of(member), member.stored, progress)

            pipeline.in_parallel(one, manifest.own, workers=self._workers)
            self._complete_origins(manifest, store, progress)
            keys = read_keys(self._primary, manifest)
            store.put(ref.keys_key(manifest.attempt), keys.encode())
            return self.commit(store, sealed)

    def _complete_origins(self, manifest: Manifest, store: Store, progress: Progress) -> None:
        """Copy what `store` lacks of the earlier backups that the manifest refers to."""
        absent = set(_lacking(store, manifest))
        lacking = {
            manifest.key_of(member): member
            for member in manifest.members
            if member.origin is not None and manifest.key_of(member) in absent
        }
        for key in lacking:
            log.warning("%s lacks %s, to which %s refers", store.name, key, manifest.backup_id)

        def one(member: Member) -> None:
            self._copy_object(store, manifest.key_of(member), member.stored, progress)

        pipeline.in_parallel(one, list(lacking.values()), workers=self._workers)
        for holder, attempt in sorted(_keys_places(manifest)):
            if holder.keys_key(attempt) in absent:
                keys = keys_at(self._primary, holder, attempt)
                store.put(holder.keys_key(attempt), keys.encode())

    def _copy_object(self, store: Store, key: str, stored: Digest, progress: Progress) -> None:
        if store.copy_from(self._primary, key):
            progress.add(stored.size)
            return
        with self._primary.reader(key) as raw, store.writer(key) as out:
            reader = DigestReader(raw, expected=stored, name=key, store=self._primary.name)
            copy(reader, out, on_bytes=progress.add)


def _keys_places(manifest: Manifest) -> set[tuple[BackupRef, str]]:
    """Return backup and attempt of every keyset that referenced members are sealed with."""
    return {
        (manifest.holder_of(member), member.origin.attempt)
        for member in manifest.members
        if member.origin is not None
    }


def _referenced(manifest: Manifest) -> dict[str, int | None]:
    """Return the size in bytes, None for any, of every object that belongs to another backup."""
    found: dict[str, int | None] = {
        manifest.key_of(member): member.stored.size
        for member in manifest.members
        if member.origin is not None
    }
    return found | {ref.keys_key(attempt): None for ref, attempt in _keys_places(manifest)}


def _lacking(store: Store, manifest: Manifest) -> Iterator[str]:
    """Yield the keys of what `manifest` refers to in earlier backups and `store` lacks.

    They are listed, not asked for one by one: that takes a request for a thousand of them, and
    only the right to list, which the writer of backups has, where it may not read them.
    """
    there = {
        found.key: found.size
        for holder, attempt in sorted(_keys_places(manifest))
        for found in store.list(f"{holder.prefix}/{attempt}")
    }
    for key, size in _referenced(manifest).items():
        if key not in there or size not in {None, there[key]}:
            yield key
