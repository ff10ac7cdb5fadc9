"""Making a backup: dump, compress, encrypt, upload, replicate; or all but the last in one stream.

Every step may be killed and repeated: a step finds its finished result, or starts clean. Of two
attempts at the same backup the conditional put of the manifest lets exactly one win.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from neuroca_backup import __version__
from neuroca_backup.catalog import Catalog
from neuroca_backup.engines import Engine, Fingerprinting, Parent, Question, Reusing, Sink
from neuroca_backup.errors import (
    AccessDeniedError,
    ChainBrokenError,
    DamagedError,
    KeyUnavailableError,
    NotFoundError,
)
from neuroca_backup.keyring.keys_document import Keyring
from neuroca_backup.keyring.keyset import Keyset
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.identity import (
    BackupRef,
    Classification,
    Component,
    attempt_token,
    is_part_of,
)
from neuroca_backup.model.manifest import Dump, Manifest, Member, SealedManifest
from neuroca_backup.model.tickets import Ticket
from neuroca_backup.services import asking, chains, pipeline, unchanged
from neuroca_backup.services.archiving import TERTIARY
from neuroca_backup.services.audit import Audit
from neuroca_backup.services.fetch import parent_of
from neuroca_backup.services.inventory import Inventory, Listed
from neuroca_backup.services.ledger import Ledger, timed
from neuroca_backup.services.locking import Locks
from neuroca_backup.services.progress import Progress
from neuroca_backup.services.replicate import Copies
from neuroca_backup.settings import CompressionSettings, Copying
from neuroca_backup.spool import Folder, Spool, StageRecord, member_path
from neuroca_backup.stages.compression import ZstdStage
from neuroca_backup.stages.sealing import SealingStage
from neuroca_backup.stores import Store
from neuroca_backup.streams import DigestReader, copy

Result = TypeVar("Result")

log = logging.getLogger(__name__)

# A chain is replayed link by link, so it is kept short. What is referred to costs a restore
# nothing: a model backed up every week is stored a few times a year, not every second week.
_CHAIN_AGE = timedelta(days=7)
_REFERENCE_AGE = timedelta(days=90)
# What has not changed need not be stored again every week, which is how often it is looked at.
_UNCHANGED_AGE = timedelta(days=30)

# A run is never this long; what is older belongs to runs that never came to their teardown.
STALE_SPOOL = timedelta(days=3)


@dataclass(frozen=True, slots=True)
class Subject:
    """A source ready to be dumped; `part` is the true name of the part of it that is, or ""."""

    name: str
    component: Component
    kind: str
    engine: Engine
    endpoint: Endpoint
    options: Mapping[str, Any]
    retention: timedelta
    full_every: timedelta
    classification: Classification = Classification.CONFIDENTIAL
    questions: tuple[Question, ...] = ()
    part: str = ""


class BackupType(StrEnum):
    """Whether a backup may continue another one; `auto` takes a full one where it cannot."""

    AUTO = "auto"
    FULL = "full"
    INCREMENTAL = "incremental"


_Call = ParamSpec("_Call")
_Made = TypeVar("_Made")


def _recorded(
    stage: Callable[Concatenate[Backups, Any, _Call], _Made],
) -> Callable[Concatenate[Backups, Any, _Call], _Made]:
    """Note in the audit trail that a stage has failed, where it does."""

    @wraps(stage)
    def recorded(
        self: Backups, of: BackupRef | Ticket, /, *args: _Call.args, **kwargs: _Call.kwargs
    ) -> _Made:
        with self._audit.failing("backup", of.backup_id, stage=stage.__name__):
            return stage(self, of, *args, **kwargs)

    return recorded


class Backups:
    """The stages of a backup as methods; each takes the previous one's ticket and gives the next.

    Args:
        subject: Resolves a source's name.
        stores: All stores by name; the first is the primary.
        keyring: The recipients that every backup is sealed for.
        catalog: Where facts and durations are noted.
        spool: Where `staged` keeps files between stages.
        compression: Level and threads of zstd.
        workers: Members handled at once.
        audit: The audit trail; without one, that of these stores.
        archive: Which backups of a component go to the tertiary store.
        locks: Has stores refuse to delete what a backup needs.
    """

    def __init__(  # noqa: PLR0913 - keyword-only, and wired in one place
        self,
        *,
        subject: Callable[[str], Subject],
        stores: Mapping[str, Store],
        keyring: Keyring,
        catalog: Catalog,
        spool: Spool,
        compression: CompressionSettings,
        workers: int,
        audit: Audit | None = None,
        archive: Callable[[Component], Copying] = lambda _: Copying.ALL,
        locks: Locks | None = None,
    ) -> None:
        self._subject = subject
        self._stores = stores
        # What is continued, referred to or found unchanged must be in all of these.
        self._near = {name: one for name, one in stores.items() if name != TERTIARY}
        self._primary = next(iter(stores.values()))
        self._keyring = keyring
        self._ledger = Ledger(catalog)
        self._audit = audit or Audit(stores=stores, catalog=catalog)
        self._copies = Copies(
            stores=stores, ledger=self._ledger, workers=workers, archive=archive, locks=locks
        )
        self._spool = spool
        self._zstd = ZstdStage(level=compression.level, threads=compression.threads)
        self._workers = workers

    @_recorded
    def dump(
        self,
        ref: BackupRef,
        *,
        backup_type: BackupType = BackupType.AUTO,
        before_restore: str = "",
    ) -> Ticket:
        """Dump the source into the spool; `before_restore` as in the manifest.

        Everything the later stages need (bucket, permissions, every recipient's key) is tried
        first, so that a long dump is not made for nothing. A backup that exists is not repeated,
        and none is made of a source that is what its newest verified backup holds: the ticket is
        then of that one, and `unchanged`. A full backup that was asked for is always made.

        Raises:
            ChainBrokenError: An incremental backup was asked for, and there is nothing that it
                could continue.
        """
        if self._copies.stored(ref):
            return _stored_ticket(ref)
        subject = self._subject(ref.source)
        self._preflight(ref, Keyset.generate())
        standing = self._unchanged(subject, ref, backup_type, before_restore)
        if standing is not None:
            return standing
        for name in self._spool.sweep(older_than=STALE_SPOOL):
            log.warning("Removed %s from the spool: its run never cleaned up", name)
        started = datetime.now(UTC)
        with timed(self._ledger, ref, "dump") as progress:

            def into_spool(parent: Parent | None) -> tuple[Folder, StageRecord]:
                folder = self._spool.claim(ref.backup_id, "dump")
                sink = pipeline.SpoolSink(folder, progress, earlier=_earlier(subject, parent))
                dump = _dumped(subject, sink, parent)
                pipeline.require_content(dump, sink.sizes, source=ref.source)
                return folder, StageRecord(
                    stage="dump",
                    started_at=started,
                    dump=dump,
                    members=sink.members,
                    parent=_continued_id(subject, parent),
                    before_restore=before_restore,
                )

            (folder, record), reason = self._continuing(subject, ref, backup_type, into_spool)
            return self._complete(ref, folder, _noted(record, reason))

    @_recorded
    def compress(self, ticket: Ticket) -> Ticket:
        """Compress every member in the spool, then delete the dump."""
        return self._stage(ticket, "compress", self._compress)

    @_recorded
    def encrypt(self, ticket: Ticket) -> Ticket:
        """Seal every member in the spool for all recipients and write the manifest beside them.

        The folder then holds the backup in its final form; uploading is copying.
        """
        return self._stage(ticket, "encrypt", self._encrypt)

    @_recorded
    def upload(self, ticket: Ticket) -> Ticket:
        """Copy the sealed backup to the primary store, the manifest last, then empty the spool."""
        if ticket.unchanged:
            return ticket
        if ticket.stored or self._copies.stored(ticket.ref):
            self._spool.clear(ticket.backup_id)
            return _stored_ticket(ticket.ref)
        folder = self._spool.open(ticket)
        sealed = SealedManifest.decode(
            (folder.path / "manifest.json").read_bytes(), name="manifest.json", ref=ticket.ref
        )
        manifest = sealed.manifest
        self._copies.require_origins(self._primary, manifest)
        with timed(self._ledger, ticket.ref, "upload", total=manifest.own_size) as progress:

            def one(member: Member) -> None:
                key = manifest.key_of(member)
                with (
                    member_path(folder.files, member.name).open("rb") as raw,
                    self._primary.writer(key) as out,
                ):
                    reader = DigestReader(raw, expected=member.stored, name=key, store="spool")
                    copy(reader, out, on_bytes=progress.add)

            pipeline.in_parallel(one, manifest.own, workers=self._workers)
            keys = (folder.path / "keys.json").read_bytes()
            self._primary.put(ticket.ref.keys_key(manifest.attempt), keys)
            winner = self._copies.commit(self._primary, sealed)
        self._made(winner)
        self._spool.clear(ticket.backup_id)
        return _stored_ticket(ticket.ref, winner)

    @_recorded
    def stream(
        self,
        ref: BackupRef,
        *,
        backup_type: BackupType = BackupType.AUTO,
        before_restore: str = "",
    ) -> Ticket:
        """Dump, compress, seal and upload in one pass; nothing in clear touches a disk.

        What is not made again is what `dump` does not make again.
        """
        if self._copies.stored(ref):
            return _stored_ticket(ref)
        subject = self._subject(ref.source)
        attempt, started, keyset = attempt_token(), datetime.now(UTC), Keyset.generate()
        keys = self._preflight(ref, keyset)
        standing = self._unchanged(subject, ref, backup_type, before_restore)
        if standing is not None:
            return standing
        stages = (self._zstd, SealingStage(keyset, ref))

        def abandon() -> None:
            self._copies.discard(self._primary, ref, lambda other: other == attempt)

        with timed(self._ledger, ref, "stream") as progress:

            def into_store(parent: Parent | None) -> tuple[Dump, tuple[Member, ...], str | None]:
                sink = pipeline.StoreSink(
                    self._primary,
                    ref,
                    attempt,
                    stages,
                    progress,
                    earlier=_earlier(subject, parent),
                )
                try:
                    dump = _dumped(subject, sink, parent)
                    pipeline.require_content(dump, sink.sizes, source=ref.source)
                except BaseException:
                    abandon()
                    raise
                return dump, sink.members, _continued_id(subject, parent)

            (dump, members, parent), reason = self._continuing(
                subject, ref, backup_type, into_store
            )
            try:
                sealed = self._seal(
                    subject,
                    ref,
                    attempt,
                    keyset,
                    started=started,
                    dump=_with_note(dump, reason),
                    members=members,
                    parent=parent,
                    before_restore=before_restore,
                )
                self._copies.require_origins(self._primary, sealed.manifest)
                self._primary.put(ref.keys_key(attempt), keys)
            except BaseException:
                abandon()
                raise
            # From here on a manifest may stand, whatever answer comes back: nothing that it may
            # name is deleted because of an error.
            winner = self._copies.commit(self._primary, sealed)
        self._made(winner)
        return _stored_ticket(ref, winner)

    @_recorded
    def replicate(self, ref: BackupRef) -> Ticket:
        """Copy the backup from the primary to every other store, each manifest last."""
        ticket = _stored_ticket(ref, self._copies.replicate(ref))
        others = [name for name, store in self._stores.items() if store is not self._primary]
        self._audit.note("replicate", ref.backup_id, details={"stores": others})
        return ticket

    def clear(self, ref: BackupRef) -> None:
        """Leave nothing of this backup in the spool."""
        self._spool.clear(ref.backup_id)

    def clear_all(self, set_id: str, component: Component, source: str) -> None:
        """Leave nothing in the spool of what the run `set_id` made of `source` and its parts."""
        whole = BackupRef.of(set_id, component, source)
        self._spool.clear(whole.backup_id)
        for backup_id in self._spool.backups():
            if is_part_of(backup_id, whole.backup_id):
                self._spool.clear(backup_id)

    def run(
        self,
        ref: BackupRef,
        *,
        mode: str,
        backup_type: BackupType = BackupType.AUTO,
        before_restore: str = "",
    ) -> Ticket:
        """Make and replicate a backup in this process, as the command does.

        The ticket is `unchanged` where an earlier backup stands for this one; see `dump`.

        Raises:
            TransientError: Another process is making this very backup through the same spool.
        """
        if mode == "streamed":
            made = self.stream(ref, backup_type=backup_type, before_restore=before_restore)
        else:
            with self._spool.held(ref.backup_id):
                try:
                    dumped = self.dump(ref, backup_type=backup_type, before_restore=before_restore)
                    made = self.upload(self.encrypt(self.compress(dumped)))
                finally:
                    self.clear(ref)
        return made if made.unchanged else self.replicate(ref)

    def _made(self, manifest: Manifest) -> None:
        details = {
            "store": self._primary.name,
            "engine": manifest.engine,
            "kind": manifest.kind,
            "bytes": manifest.own_size,
            "members": len(manifest.members),
        }
        self._audit.note("backup", manifest.backup_id, details=details)

    def _preflight(self, ref: BackupRef, keyset: Keyset) -> bytes:
        """Try every store and every recipient; return the keys.json of `keyset`."""
        for store in self._stores.values():
            store.check()
        return self._keyring.wrap(keyset, backup_id=ref.backup_id).encode()

    def _unchanged(
        self, subject: Subject, ref: BackupRef, backup_type: BackupType, before_restore: str
    ) -> Ticket | None:
        """Return the ticket of the backup that stands for `ref`, or None where it is to be made."""
        engine = subject.engine
        if backup_type is BackupType.FULL or before_restore:
            return None
        if not isinstance(engine, Fingerprinting):
            return None
        return unchanged.check(
            self._near,
            ref,
            lambda: engine.fingerprint(subject.endpoint, subject.options),
            engine=subject.kind,
            full_every=subject.full_every,
        )

    def _continuing(
        self,
        subject: Subject,
        ref: BackupRef,
        backup_type: BackupType,
        work: Callable[[Parent | None], Result],
    ) -> tuple[Result, str]:
        """Do `work` with the backup to continue, or with None for a full one; say why with that.

        A full backup holds all that an incremental one would, so an engine that knows no other is
        not an error; a chain that is broken is one where an incremental backup was asked for.
        """
        if not subject.engine.incremental:
            asked = backup_type is BackupType.INCREMENTAL
            reason = f"{subject.kind} takes full backups only" if asked else ""
            if _reuses(subject.engine) and backup_type is not BackupType.FULL:
                return self._referring(subject, ref, work), reason
            return work(None), reason
        if backup_type is BackupType.FULL:
            return work(None), ""
        choice = chains.continued(
            Inventory(self._near),
            ref,
            engine=subject.kind,
            full_every=subject.full_every,
            now=datetime.now(UTC),
        )
        reason = choice.reason
        if choice.parent is not None:
            try:
                parent = self._parent(choice.parent)
                return work(parent), ""
            except (ChainBrokenError, DamagedError, KeyUnavailableError) as error:
                reason = error.problem
        if backup_type is BackupType.INCREMENTAL:
            raise ChainBrokenError(
                f"No incremental backup of {ref.source} can be taken: {reason}",
                remedy="Take a full one (backup_type full, or auto).",
                source=ref.source,
            )
        log.warning("%s is a full backup: %s", ref.backup_id, reason)
        return work(None), reason

    def _referring(
        self, subject: Subject, ref: BackupRef, work: Callable[[Parent | None], Result]
    ) -> Result:
        """Do `work` with the backup whose members may be referred to, or with None: store all."""
        choice = chains.referable(
            Inventory(self._near),
            ref,
            engine=subject.kind,
            full_every=subject.full_every,
            now=datetime.now(UTC),
        )
        reason = choice.reason
        if choice.parent is not None:
            try:
                parent = self._parent(choice.parent)
                return work(parent)
            except (DamagedError, KeyUnavailableError, NotFoundError) as error:
                reason = error.problem
        log.info("%s stores all that it holds: %s", ref.backup_id, reason)
        return work(None)

    def _parent(self, found: Listed) -> Parent:
        """Return the backup `found` as an engine continues it.

        Raises:
            KeyUnavailableError: These credentials may not open it, as those of a strict writer.
            BackupError: As `parent_of`.
        """
        try:
            return parent_of(found, stores=self._near, keyring=self._keyring)
        except AccessDeniedError as error:
            raise KeyUnavailableError(
                f"these credentials may not open {found.ref.backup_id} ({error.problem})",
                remedy="Set access.incremental in backup.yaml and apply the policies it gives, or "
                "let every backup be full.",
                backup_id=found.ref.backup_id,
            ) from None

    def _stage(
        self,
        ticket: Ticket,
        stage: str,
        work: Callable[[Ticket, Folder, Folder, Progress], StageRecord],
    ) -> Ticket:
        if ticket.stored:
            return ticket
        ref = ticket.ref
        made = self._spool.made_from(ticket, stage)
        if made is not None:
            log.info("%s of %s was finished by an earlier try", stage, ref.backup_id)
            self._spool.discard(ticket)
            return _ticket(ref, made, made.record())
        source = self._spool.open(ticket)
        target = self._spool.claim(ref.backup_id, stage)
        with timed(self._ledger, ref, stage, total=ticket.size) as progress:
            record = work(ticket, source, target, progress)
            result = self._complete(ref, target, record)
        self._spool.remove(source)
        return result

    def _compress(
        self, ticket: Ticket, source: Folder, target: Folder, progress: Progress
    ) -> StageRecord:
        record = source.record()
        members = pipeline.transform(
            source, target, record.members, (self._zstd,), workers=self._workers, progress=progress
        )
        return record.model_copy(
            update={
                "stage": "compress",
                "consumed": ticket.place,
                "members": members,
                "stages": (*record.stages, self._zstd.name),
            }
        )

    def _encrypt(
        self, ticket: Ticket, source: Folder, target: Folder, progress: Progress
    ) -> StageRecord:
        record, ref = source.record(), ticket.ref
        keyset, attempt = Keyset.generate(), attempt_token()
        seal = SealingStage(keyset, ref)
        members = pipeline.transform(
            source, target, record.members, (seal,), workers=self._workers, progress=progress
        )
        sealed = self._seal(
            self._subject(ref.source),
            ref,
            attempt,
            keyset,
            started=record.started_at,
            dump=record.dump,
            parent=record.parent,
            before_restore=record.before_restore,
            members=tuple(
                Member(
                    name=member.name,
                    plain=member.plain,
                    stored=member.current,
                    origin=member.origin,
                )
                for member in members
            ),
        )
        keys = self._keyring.wrap(keyset, backup_id=ref.backup_id).encode()
        _write(target.path / "keys.json", keys)
        _write(target.path / "manifest.json", sealed.encode())
        return record.model_copy(
            update={
                "stage": "encrypt",
                "consumed": ticket.place,
                "members": members,
                "stages": (*record.stages, seal.name),
            }
        )

    def _seal(
        self,
        subject: Subject,
        ref: BackupRef,
        attempt: str,
        keyset: Keyset,
        *,
        started: datetime,
        dump: Dump,
        members: tuple[Member, ...],
        parent: str | None,
        before_restore: str,
    ) -> SealedManifest:
        manifest = Manifest(
            backup_id=ref.backup_id,
            set_id=ref.set_id,
            component=ref.component,
            source=ref.source,
            engine=subject.kind,
            attempt=attempt,
            kind="incremental" if parent else "full",
            parent=parent,
            before_restore=before_restore,
            stages=(ZstdStage.name, SealingStage.name),
            dump=dump,
            members=members,
            started_at=started,
            finished_at=datetime.now(UTC),
            expires_at=started + subject.retention,
            classification=subject.classification.value,
            product=f"neuroca-backup {__version__}",
        )
        return SealedManifest.seal(manifest, keyset.mac)

    def _complete(self, ref: BackupRef, folder: Folder, record: StageRecord) -> Ticket:
        return _ticket(ref, self._spool.complete(folder, record), record)


def _ticket(ref: BackupRef, folder: Folder, record: StageRecord) -> Ticket:
    return Ticket(
        backup_id=ref.backup_id,
        component=ref.component.value,
        stage=record.stage,
        place=folder.place,
        members=len(record.members),
        size=sum(member.current.size for member in record.members if member.origin is None),
    )


def _stored_ticket(ref: BackupRef, manifest: Manifest | None = None) -> Ticket:
    return Ticket(
        backup_id=ref.backup_id,
        component=ref.component.value,
        stage="stored",
        place="",
        members=len(manifest.members) if manifest else 0,
        size=manifest.own_size if manifest else 0,
    )


def _dumped(subject: Subject, sink: Sink, parent: Parent | None) -> Dump:
    """Dump the source and ask it; of a part, the manifest's facts keep the true name."""
    dump = subject.engine.dump(subject.endpoint, sink, subject.options, parent)
    dump = asking.with_answers(dump, subject.engine, subject.endpoint, subject.questions)
    if not subject.part:
        return dump
    return dump.model_copy(update={"facts": {**dump.facts, "part": subject.part}})


def default_full_every(engine: Engine) -> timedelta:
    """Return how old what a backup builds on may be, where the source does not say it."""
    if _reuses(engine):
        return _REFERENCE_AGE
    return _UNCHANGED_AGE if isinstance(engine, Fingerprinting) else _CHAIN_AGE


def _reuses(engine: Engine) -> bool:
    return isinstance(engine, Reusing) and engine.reuses


def _earlier(subject: Subject, parent: Parent | None) -> pipeline.Earlier | None:
    """Return what the dump may refer to; an engine that continues its parent refers to nothing."""
    if parent is None or not _reuses(subject.engine):
        return None
    return pipeline.Earlier(parent.manifest, since=datetime.now(UTC) - subject.full_every)


def _continued_id(subject: Subject, parent: Parent | None) -> str | None:
    """Return the parent for the manifest: a backup that only refers to it is a full one."""
    return parent.manifest.backup_id if parent and subject.engine.incremental else None


def _noted(record: StageRecord, reason: str) -> StageRecord:
    return record.model_copy(update={"dump": _with_note(record.dump, reason)})


def _with_note(dump: Dump, reason: str) -> Dump:
    """Return `dump` with the note why this is a full backup, where there is a reason."""
    notes = (*dump.notes, f"A full backup: {reason}.") if reason else dump.notes
    return dump.model_copy(update={"notes": notes})


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
