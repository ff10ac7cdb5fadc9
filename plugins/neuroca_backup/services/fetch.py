"""Fetching a backup into the spool: every byte proven, each member from the nearest good copy."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from neuroca_backup.errors import (
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
from neuroca_backup.model.tickets import RestorePlan
from neuroca_backup.services.inventory import read_keys, read_manifest
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
    """One fetch over several stores; a store that stops answering is not asked again."""

    spool: Spool
    plan: RestorePlan
    keyring: Keyring
    stores: Mapping[str, Store]
    used: dict[str, int] = field(default_factory=dict)
    fallbacks: list[str] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)
    _opened: dict[str, tuple[Manifest, Keyset]] = field(default_factory=dict)
    _progress: Progress = field(init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._progress = Progress(f"fetch {self.plan.backup_id}", total=self.plan.plain_size)

    def open(self) -> Manifest:
        """Authenticate every store's manifest and return the first good one."""
        answers: list[BackupError] = []
        for name in self.plan.stores:
            try:
                self._opened[name] = authenticate(self.stores[name], self.plan.ref, self.keyring)
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
        """Fetch one member from the nearest store whose copy is good."""
        reasons: list[str] = []
        transient = True
        for name, (manifest, keyset) in self._opened.items():
            if name in self.lost:
                reasons.append(f"{name}: stopped answering")
                continue
            try:
                self._fetch(self.stores[name], manifest, keyset, member, folder)
            except SpoolError:
                raise
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
                return SpooledMember(name=member.name, plain=member.plain, current=member.plain)
        raise no_copy(f"{self.plan.backup_id}/{member.name}", reasons, transient=transient)

    def told(self) -> tuple[str, ...]:
        """Return the fallbacks for the report; the log has those beyond the first twenty."""
        more = len(self.fallbacks) - _FALLBACKS_TOLD
        told = tuple(self.fallbacks[:_FALLBACKS_TOLD])
        return (*told, f"... and {more} more, see the log") if more > 0 else told

    def _unopened(self, answers: Sequence[BackupError]) -> BackupError:
        for answer in answers:
            # No store is to blame for a key; `answers` are those of the keyset's recipients.
            if isinstance(answer, KeyUnavailableError) or "answers" in answer.facts:
                return answer
        return no_copy(
            f"manifest and keys of {self.plan.backup_id}",
            [str(answer) for answer in answers],
            transient=all(isinstance(answer, TransientError) for answer in answers),
        )

    def _fetch(
        self, store: Store, manifest: Manifest, keyset: Keyset, member: Member, folder: Folder
    ) -> None:
        key = manifest.key_of(member)
        path = folder.create(member.name)
        stages = resolve(manifest.stages, keyset=keyset, ref=manifest.ref)
        with store.reader(key) as raw:
            stored = DigestReader(raw, expected=member.stored, name=key, store=store.name)
            with backward_all(stages, stored, member=member.name) as opened:
                plain = DigestReader(opened, expected=member.plain, name=key, store=store.name)
                with translated(self.spool.root), path.open("wb") as out:
                    copy(plain, out, on_bytes=self._progress.add)
            stored.drain()

    def _fall_back(self, note: str) -> None:
        log.warning("%s", note)
        self.fallbacks.append(note)


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


def no_copy(what: str, reasons: Sequence[str], *, transient: bool = False) -> BackupError:
    """Return the error that says why no store could give `what`; `reasons` are by store."""
    problem = f"No store has a good copy of {what}: {'; '.join(reasons)}"
    if transient:
        return StoreUnavailableError(
            problem, remedy="It is tried again; mend the network if it goes on.", what=what
        )
    return DamagedError(
        problem, remedy="Restore an older backup: `neuroca-backup list` shows them.", what=what
    )
