"""Fetching a backup into the spool: every byte proven, each member from the nearest good copy."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import BinaryIO

from neuroca_backup.engines import Parent
from neuroca_backup.errors import (
    ArchivedError,
    BackupError,
    DamagedError,
    KeyUnavailableError,
    NotFoundError,
    SpoolError,
    StoreUnavailableError,
    TransientError,
)
from neuroca_backup.keyring.keys_document import Keyring
from neuroca_backup.keyring.keyset import Keyset
from neuroca_backup.model.identity import BackupRef
from neuroca_backup.model.manifest import Manifest, Member
from neuroca_backup.services import past
from neuroca_backup.services.inventory import Listed, read_keys, read_manifest
from neuroca_backup.services.keysets import Keysets
from neuroca_backup.services.progress import Progress
from neuroca_backup.spool import Folder, Spool, SpooledMember, translated
from neuroca_backup.stages.resolve import backward_all, resolve
from neuroca_backup.stores import Store
from neuroca_backup.streams import DigestReader, copy

log = logging.getLogger(__name__)

# The report travels by XCom: a store with thousands of damaged members must not fill it.
_FALLBACKS_TOLD = 20


@dataclass(slots=True)
class Fetching:
    """Fetching one backup over several stores; one that stops answering is not asked again.

    `stores` are in the order in which they are asked.
    """

    spool: Spool
    ref: BackupRef
    keyring: Keyring
    stores: Mapping[str, Store]
    progress: Progress
    used: dict[str, int] = field(default_factory=dict)
    fallbacks: list[str] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)
    _opened: dict[str, tuple[Manifest, Keysets]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def open(self) -> Manifest:
        """Authenticate every store's manifest and return the first good one."""
        answers: list[BackupError] = []
        for name, store in self.stores.items():
            try:
                manifest, keyset = authenticate(store, self.ref, self.keyring)
                self._opened[name] = (manifest, self._keysets(manifest, keyset, nearest=store))
            except BackupError as error:
                answers.append(error)
                self.lost.add(name)
                self._fall_back(f"{name} is left out: {error.problem}")
        if not self._opened:
            raise self._unopened(answers)
        first = next(iter(self._opened.values()))[0]
        for name, (manifest, _) in list(self._opened.items()):
            if manifest.attempt != first.attempt:
                del self._opened[name]
                self._fall_back(f"{name} is left out: it holds another attempt of this backup")
        return first

    def member(self, member: Member, folder: Folder) -> SpooledMember:
        """Fetch one member from the nearest store whose copy is good.

        A member that an earlier backup holds is read there; the keys of that one may come from
        another store than its bytes.
        """
        reasons: list[str] = []
        transient, archived = True, False
        for name, (manifest, keysets) in self._opened.items():
            if name in self.lost:
                reasons.append(f"{name}: stopped answering")
                continue
            try:
                keyset = keysets.of(member)
            except KeyUnavailableError:
                raise
            except BackupError as error:
                transient = transient and isinstance(error, TransientError)
                reasons.append(f"{name}: {error.problem}")
                continue
            try:
                self._fetch(self.stores[name], manifest, keyset, member, folder)
            except SpoolError:
                raise
            except ArchivedError as error:
                # The store is well, and so may its copies of other members be.
                archived = True
                reasons.append(f"{name}: {error.problem}")
            except (DamagedError, NotFoundError) as error:
                transient = False
                reasons.append(f"{name}: {error.problem}")
                self._fall_back(f"{member.name} was not taken from {name}: {error.problem}")
            except BackupError as error:
                transient = transient and isinstance(error, TransientError)
                self.lost.add(name)
                reasons.append(f"{name}: {error.problem}")
                self._fall_back(f"{name} stopped answering: {error.problem}")
            else:
                with self._lock:
                    self.used[name] = self.used.get(name, 0) + member.stored.size
                return SpooledMember(
                    name=spooled_name(self.ref, member.name),
                    plain=member.plain,
                    current=member.plain,
                )
        what = f"{self.ref.backup_id}/{member.name}"
        raise no_copy(what, reasons, transient=transient, archived=archived)

    def _unopened(self, answers: Sequence[BackupError]) -> BackupError:
        for answer in answers:
            # No store is to blame for a key; `answers` are those of the keyset's recipients.
            if isinstance(answer, KeyUnavailableError) or "answers" in answer.facts:
                return answer
        return no_copy(
            f"manifest and keys of {self.ref.backup_id}",
            [str(answer) for answer in answers],
            transient=all(isinstance(answer, TransientError) for answer in answers),
        )

    def _fetch(
        self, store: Store, manifest: Manifest, keyset: Keyset, member: Member, folder: Folder
    ) -> None:
        path = folder.create(spooled_name(self.ref, member.name))
        with (
            opened(store, manifest, keyset, member) as plain,
            translated(self.spool.root),
            path.open("wb") as out,
        ):
            copy(plain, out, on_bytes=self.progress.add)

    def _keysets(self, manifest: Manifest, own: Keyset, *, nearest: Store) -> Keysets:
        others = [store for store in self.stores.values() if store is not nearest]
        return Keysets(manifest, own, stores=(nearest, *others), keyring=self.keyring)

    def _fall_back(self, note: str) -> None:
        log.warning("%s", note)
        self.fallbacks.append(note)


@contextmanager
def opened(
    store: Store, manifest: Manifest, keyset: Keyset, member: Member
) -> Iterator[DigestReader]:
    """Give the original bytes of a stored member; what the block leaves unread is read, too.

    `keyset` is that of the backup that holds the bytes.

    Raises:
        DamagedError: Its stored or its original bytes are not what the manifest says.
    """
    key, origin = manifest.key_of(member), manifest.origin_of(member)
    stages = resolve(origin.stages, keyset=keyset, ref=manifest.holder_of(member))
    with store.reader(key) as raw:
        stored = DigestReader(raw, expected=member.stored, name=key, store=store.name)
        with backward_all(stages, stored, member=origin.name) as unsealed:
            plain = DigestReader(unsealed, expected=member.plain, name=key, store=store.name)
            yield plain
            plain.drain()
        stored.drain()


def spooled_name(ref: BackupRef, member: str) -> str:
    """Return a member's name in the spool, where those of a whole chain lie side by side."""
    return f"{ref.backup_id}/{member}"


def parent_of(found: Listed, *, stores: Mapping[str, Store], keyring: Keyring) -> Parent:
    """Return the backup `found` as an engine continues it, read from the nearest store that can.

    Raises:
        BackupError: The last store's own, when none could open it.
    """
    answers: list[BackupError] = []
    for name in found.manifests:
        try:
            manifest, keyset = authenticate(stores[name], found.ref, keyring)
        except BackupError as error:
            log.warning("%s cannot be continued from %s: %s", found.ref.backup_id, name, error)
            answers.append(error)
            continue
        others = [stores[other] for other in found.manifests if other != name]
        keysets = Keysets(manifest, keyset, stores=(stores[name], *others), keyring=keyring)
        members = {member.name: member for member in manifest.members}
        return Parent(manifest, partial(_member_of, stores[name], manifest, keysets, members))
    raise answers[-1]


def _member_of(
    store: Store, manifest: Manifest, keysets: Keysets, members: Mapping[str, Member], name: str
) -> AbstractContextManager[BinaryIO]:
    return opened(store, manifest, keysets.of(members[name]), members[name])


def authenticate(store: Store, ref: BackupRef, keyring: Keyring) -> tuple[Manifest, Keyset]:
    """Return the manifest of `ref` in `store` with its keyset, once that has proven it.

    Raises:
        DamagedError: The manifest or the keys are not what was written.
        KeyUnavailableError, UnreachableError: No recipient could unwrap the keyset.
    """
    sealed = read_manifest(store, ref)
    name = f"{store.name}:{ref.keys_key(sealed.manifest.attempt)}"
    keys = read_keys(store, sealed.manifest)
    keyset = keyring.unwrap(keys, backup_id=ref.backup_id, name=name)
    if not keyset.verify_mac(sealed.covered, sealed.mac):
        raise DamagedError(
            f"{store.name}:{ref.manifest_key} has a MAC that this backup's key did not make",
            remedy="Someone may have changed it: restore from another store.",
            key=ref.manifest_key,
            store=store.name,
        )
    return sealed.manifest, keyset


def told(fallbacks: Sequence[str]) -> tuple[str, ...]:
    """Return the fallbacks for the report; the log has those beyond the first twenty."""
    more = len(fallbacks) - _FALLBACKS_TOLD
    first = tuple(fallbacks[:_FALLBACKS_TOLD])
    return (*first, f"... and {more} more, see the log") if more > 0 else first


def no_copy(
    what: str, reasons: Sequence[str], *, transient: bool = False, archived: bool = False
) -> BackupError:
    """Return the error that says why no store could give `what`; `reasons` are by store."""
    problem = f"No store has a good copy of {what}: {'; '.join(reasons)}"
    if archived:
        return ArchivedError(
            problem,
            remedy="The copy in the archive is left: retrieve it (--wait-for-retrieval, or a tier "
            "in the form). If another copy was found damaged here, verify the backup first, so "
            "that the damage is known.",
            what=what,
        )
    if transient:
        return StoreUnavailableError(
            problem, remedy="It is tried again; mend the network if it goes on.", what=what
        )
    return DamagedError(
        problem,
        remedy=f"Restore an older backup: `neuroca-backup list` shows them. {past.REMEDY}",
        what=what,
    )
