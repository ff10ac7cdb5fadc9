"""Verifying: reading stored backups back and saying how far each copy is proven.

A check that could not run is an error, never a result; a finding names the object and the store.
What a backup refers to in earlier ones is read like its own members, in every store.
"""

from __future__ import annotations

import io
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, BinaryIO

from neuroca_backup.catalog import Catalog
from neuroca_backup.engines import Engine
from neuroca_backup.errors import BackupError, DamagedError, NotFoundError
from neuroca_backup.keyring.keys_document import Keyring, KeysDocument
from neuroca_backup.keyring.keyset import Keyset
from neuroca_backup.model import document
from neuroca_backup.model.identity import BackupRef
from neuroca_backup.model.manifest import Manifest, Member, SealedManifest
from neuroca_backup.model.status import Finding, Level, Verification
from neuroca_backup.services import pipeline
from neuroca_backup.services.inventory import (
    holds,
    keys_at,
    read_checked,
    read_manifest,
    read_verification,
)
from neuroca_backup.services.keysets import Keysets
from neuroca_backup.services.ledger import Ledger
from neuroca_backup.services.progress import Progress
from neuroca_backup.stages.resolve import backward_all, resolve
from neuroca_backup.stores import Store
from neuroca_backup.streams import CHUNK_BYTES, DigestReader, RawStream

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

log = logging.getLogger(__name__)


class Verifier:
    """Checks backups in their stores.

    Args:
        engine: Resolves the engine that a manifest names.
        stores: All stores by name; the last one configured is the one read in depth.
        keyring: Who can unwrap keys; needed for READABLE and above.
        catalog: Where results are noted, beside the one kept in the store itself.
        workers: Members read at once.
    """

    def __init__(
        self,
        *,
        engine: Callable[[str], Engine],
        stores: Mapping[str, Store],
        keyring: Keyring,
        catalog: Catalog,
        workers: int,
    ) -> None:
        self._engine = engine
        self._stores = stores
        self._keyring = keyring
        self._ledger = Ledger(catalog)
        self._workers = workers

    def verify(self, ref: BackupRef, *, level: Level = Level.PARSED) -> dict[str, Verification]:
        """Check every store's copy: INTACT everywhere, and up to `level` in the secondary.

        Whoever restores on the worst day reads the secondary, so that is the copy unsealed here.

        Raises:
            DamagedError: A copy is damaged, after all results were recorded; lists every finding.
            NotFoundError: No store has the backup.
            BackupError: A store could not be checked; the others have been.
        """
        deepest = "secondary" if "secondary" in self._stores else next(iter(self._stores))
        results: dict[str, Verification] = {}
        failures: list[BackupError] = []
        held = False
        # A store that does not answer must not keep the others from being checked.
        for name in self._stores:
            try:
                present = holds(self._stores[name], ref)
                held = held or present
                if present or name != "tertiary":
                    depth = level if name == deepest else Level.INTACT
                    results[name] = self.check(ref, name, level=depth)
            except BackupError as error:
                log.error("%s could not be checked in %s: %s", ref.backup_id, name, error)  # noqa: TRY400 - raised below
                failures.append(error)
        if not held and not failures:
            raise NotFoundError(
                f"There is no backup {ref.backup_id} in {', '.join(self._stores)}",
                remedy="`neuroca-backup list` shows what there is.",
                backup_id=ref.backup_id,
            )
        findings = [
            f"{name}: {finding.key}: {finding.problem}"
            for name, result in results.items()
            for finding in result.findings
        ]
        if findings:
            raise DamagedError(
                f"{ref.backup_id} is damaged: {'; '.join(findings)}",
                remedy="Another store's copy can be restored; find out what damaged this one, "
                "then take a new backup.",
                backup_id=ref.backup_id,
                findings=findings,
            )
        if failures:
            raise failures[0]
        return results

    def check(self, ref: BackupRef, store_name: str, *, level: Level) -> Verification:
        """Check one store's copy up to `level`, record the result there and in the catalog."""
        store = self._stores[store_name]
        begun = time.monotonic()
        copy = _Copy(store, ref, self._keyring, self._engine, self._workers)
        reached = copy.examine(level)
        result = Verification(
            backup_id=ref.backup_id,
            store=store.name,
            level=reached,
            findings=tuple(copy.findings),
            checked_at=datetime.now(UTC),
            seconds=time.monotonic() - begun,
            bytes_read=copy.progress.done,
        )
        if holds(store, ref):
            # Where there is no manifest there is no backup, and nothing may look like one.
            store.put(ref.verification_key, document.encode(result.model_dump(mode="json")))
        self._ledger.note(
            f"the check of {ref.backup_id} in {store.name}",
            lambda catalog: catalog.record_verification(result),
        )
        log.info(
            "%s in %s: %s, %d findings, %.1f s",
            ref.backup_id,
            store.name,
            reached.name,
            len(result.findings),
            result.seconds,
        )
        return result


class _Copy:
    """One examination of one copy; `findings` grow, nothing stops at the first."""

    def __init__(
        self,
        store: Store,
        ref: BackupRef,
        keyring: Keyring,
        engine: Callable[[str], Engine],
        workers: int,
    ) -> None:
        self.findings: list[Finding] = []
        self.progress = Progress(f"verify {ref.backup_id} in {store.name}")
        self._store = store
        self._ref = ref
        self._keyring = keyring
        self._engine = engine
        self._workers = workers
        self._lock = threading.Lock()

    def examine(self, level: Level) -> Level:
        try:
            sealed = read_manifest(self._store, self._ref)
        except (DamagedError, NotFoundError) as error:
            self._found(self._ref.manifest_key, error)
            return Level.NONE
        manifest = sealed.manifest
        self.progress.total = manifest.stored_size
        try:
            read_verification(self._store, self._ref)
        except DamagedError as error:
            self._found(self._ref.verification_key, error)
        try:
            read_checked(self._store, self._ref)
        except DamagedError as error:
            self._found(self._ref.checked_key, error)
        keys = self._keys(manifest)
        if not manifest.members and not manifest.dump.empty:
            self._add(self._ref.manifest_key, "names no member, and does not say that it is empty")
        self._unlisted(manifest)
        if level <= Level.INTACT or keys is None:
            self._all_intact(manifest, manifest.members)
            reached = Level.INTACT
        else:
            reached = self._in_depth(sealed, keys, level)
        return Level.PRESENT if self.findings else reached

    def _keys(self, manifest: Manifest) -> KeysDocument | None:
        """Find keys that are gone or damaged, those of earlier backups, too; return its own."""
        places = {
            manifest.keys_of(member): (manifest.holder_of(member), member.origin.attempt)
            for member in manifest.members
            if member.origin is not None
        }
        own = self._ref.keys_key(manifest.attempt)
        found: KeysDocument | None = None
        for key, (ref, attempt) in {own: (self._ref, manifest.attempt), **places}.items():
            try:
                keys = keys_at(self._store, ref, attempt)
            except (DamagedError, NotFoundError) as error:
                self._found(key, error)
            else:
                found = keys if key == own else found
        return found

    def _unlisted(self, manifest: Manifest) -> None:
        """Find objects that the manifest does not name."""
        listed = {found.key for found in self._store.list(f"{self._ref.prefix}/{manifest.attempt}")}
        expected = {manifest.key_of(member) for member in manifest.members}
        expected.add(self._ref.keys_key(manifest.attempt))
        for key in sorted(listed - expected):
            self._add(key, "does not belong to this backup")

    def _all_intact(self, manifest: Manifest, members: Sequence[Member]) -> None:
        pipeline.in_parallel(
            lambda member: self._intact(manifest, member), members, workers=self._workers
        )

    def _intact(self, manifest: Manifest, member: Member) -> None:
        key = manifest.key_of(member)
        try:
            with self._store.reader(key) as raw:
                self._stored(raw, member, key).drain()
        except (DamagedError, NotFoundError) as error:
            self._found(key, error)

    def _in_depth(self, sealed: SealedManifest, keys: KeysDocument, level: Level) -> Level:
        manifest = sealed.manifest
        keys_key = self._ref.keys_key(manifest.attempt)
        try:
            keyset = self._keyring.unwrap(keys, backup_id=self._ref.backup_id, name=keys_key)
        except DamagedError as error:
            self._found(keys_key, error)
            return Level.PRESENT
        if not keyset.verify_mac(sealed.covered, sealed.mac):
            self._add(self._ref.manifest_key, "its MAC was not made with this backup's key")
            return Level.PRESENT
        keysets = Keysets(manifest, keyset, stores=[self._store], keyring=self._keyring)
        members = {member.name: member for member in manifest.members}
        proven: set[str] = set()

        def opened(name: str) -> BinaryIO:
            member = _Member(self, manifest, members[name], keysets.of(members[name]), proven)
            # A raw stream would give a line byte by byte.
            return io.BufferedReader(member, CHUNK_BYTES)

        known = {finding.key for finding in self.findings}
        locked = [one for one in manifest.members if manifest.keys_of(one) in known]
        if locked:
            # Without all keys the structure says nothing; every byte is still held to its digest.
            self._all_intact(manifest, manifest.members)
            return Level.PRESENT
        if level >= Level.PARSED:
            try:
                self._engine(manifest.engine).check(manifest, opened)
            except (DamagedError, NotFoundError) as error:
                key = str(error.facts.get("key") or self._ref.prefix)
                named = members.get(key)
                self._found(manifest.key_of(named) if named else key, error)
        known = {finding.key for finding in self.findings}
        unread = [
            member
            for member in manifest.members
            if member.name not in proven and manifest.key_of(member) not in known
        ]

        def read(member: Member) -> None:
            try:
                opened(member.name).close()
            except (DamagedError, NotFoundError) as error:
                self._found(manifest.key_of(member), error)

        pipeline.in_parallel(read, unread, workers=self._workers)
        return min(level, Level.PARSED)

    def _stored(self, raw: BinaryIO, member: Member, key: str) -> DigestReader:
        return DigestReader(
            raw,
            expected=member.stored,
            name=key,
            store=self._store.name,
            on_bytes=self.progress.add,
        )

    def _found(self, key: str, error: DamagedError | NotFoundError) -> None:
        self._add(key, error.problem)

    def _add(self, key: str, problem: str) -> None:
        with self._lock:
            self.findings.append(Finding(key=key, problem=problem))


class _Member(RawStream):
    """The original bytes of a stored member; closing it reads what is left and checks all of it.

    A reader that stops early would otherwise have proven nothing.
    """

    def __init__(
        self, copy: _Copy, manifest: Manifest, member: Member, keyset: Keyset, proven: set[str]
    ) -> None:
        super().__init__()
        self._stack = ExitStack()
        self._name = member.name
        self._proven = proven
        key, origin = manifest.key_of(member), manifest.origin_of(member)
        raw = self._stack.enter_context(copy._store.reader(key))  # noqa: SLF001 - one mechanism
        self._stored = copy._stored(raw, member, key)  # noqa: SLF001 - as above
        stages = resolve(origin.stages, keyset=keyset, ref=manifest.holder_of(member))
        plain = self._stack.enter_context(backward_all(stages, self._stored, member=origin.name))
        self._plain = DigestReader(
            plain,
            expected=member.plain,
            name=key,
            store=copy._store.name,  # noqa: SLF001 - as above
        )
        self._failed = False

    def readable(self) -> bool:
        """Return True: bytes may be read."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Return original bytes; raises `DamagedError` as soon as damage shows."""
        try:
            return self._plain.read(size)
        except BaseException:
            self._failed = True
            raise

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Read into `buffer` as `read` does; return the number of bytes, 0 at the end."""
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Check the rest, unless reading has already failed."""
        if self.closed:
            return
        try:
            if not self._failed:
                self._plain.drain()
                self._stored.drain()
                self._proven.add(self._name)
        finally:
            self._stack.close()
            super().close()
