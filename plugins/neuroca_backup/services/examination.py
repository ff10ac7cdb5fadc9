"""Examining one store's copy of a backup: every byte read, every finding collected.

What the backup refers to in earlier ones is read like its own members.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, BinaryIO

from neuroca_backup.engines import Engine
from neuroca_backup.errors import DamagedError, NotFoundError
from neuroca_backup.keyring.keys_document import Keyring, KeysDocument
from neuroca_backup.keyring.keyset import Keyset
from neuroca_backup.model.identity import BackupRef
from neuroca_backup.model.manifest import Manifest, Member, SealedManifest
from neuroca_backup.model.status import Finding, Level
from neuroca_backup.services import pipeline
from neuroca_backup.services.inventory import (
    keys_at,
    read_checked,
    read_hold,
    read_manifest,
    read_tombstone,
    read_verification,
    require_about,
)
from neuroca_backup.services.keysets import Keysets
from neuroca_backup.services.progress import Progress
from neuroca_backup.stages.resolve import backward_all, resolve
from neuroca_backup.stores import Store
from neuroca_backup.streams import CHUNK_BYTES, DigestReader, RawStream

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class Examination:
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
        self.manifest_sha256 = ""
        self.progress = Progress(f"verify {ref.backup_id} in {store.name}")
        self._store = store
        self._ref = ref
        self._keyring = keyring
        self._engine = engine
        self._workers = workers
        self._lock = threading.Lock()

    def examine(self, level: Level) -> Level:
        """Look at everything up to `level`; return what was proven, PRESENT with any finding."""
        try:
            sealed = read_manifest(self._store, self._ref)
        except (DamagedError, NotFoundError) as error:
            self._found(self._ref.manifest_key, error)
            return Level.NONE
        manifest = sealed.manifest
        self.manifest_sha256 = sealed.sha256
        self.progress.total = manifest.stored_size
        self._beside()
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

    def _beside(self) -> None:
        """Find damage in the small objects beside the manifest; each of them may be absent."""

        def about_this(store: Store, ref: BackupRef) -> None:
            require_about(read_verification(store, ref), self.manifest_sha256, store, ref)

        readers: dict[str, Callable[[Store, BackupRef], object]] = {
            self._ref.verification_key: about_this,
            self._ref.checked_key: read_checked,
            self._ref.tombstone_key: read_tombstone,
            self._ref.hold_key: read_hold,
        }
        for key, read in readers.items():
            try:
                read(self._store, self._ref)
            except DamagedError as error:
                self._found(key, error)

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
        self,
        copy: Examination,
        manifest: Manifest,
        member: Member,
        keyset: Keyset,
        proven: set[str],
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
