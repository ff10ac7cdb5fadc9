"""Moving members through stages: the one place where both pipelines do it.

`staged` moves them from folder to folder of the spool, `streamed` from the engine straight into a
store; either way a member goes through `forward_all`, with a digest taken on both sides.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, TypeVar

from neuroca_backup.errors import EmptySourceError
from neuroca_backup.model.identity import BackupRef
from neuroca_backup.model.manifest import Digest, Dump, Manifest, Member
from neuroca_backup.services.progress import Progress
from neuroca_backup.spool import Folder, SpooledMember, member_path, translated
from neuroca_backup.stages import Stage
from neuroca_backup.stages.resolve import forward_all
from neuroca_backup.stores import Store
from neuroca_backup.streams import DigestReader, DigestWriter, copy

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_parallel(
    work: Callable[[Item], Result], items: Sequence[Item], *, workers: int
) -> list[Result]:
    """Return `work` of every item in order; the first error stops what has not begun."""
    with ThreadPoolExecutor(max_workers=workers) as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                future.result()
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


class Earlier:
    """The members of an earlier backup that a new one may refer to instead of storing them.

    Args:
        manifest: The earlier backup, whole in every store.
        since: What was stored before this moment (aware) is stored again: a reference ties the
            new backup to old objects, and those have to be written anew some time.
    """

    def __init__(self, manifest: Manifest, *, since: datetime) -> None:
        self._manifest = manifest
        self._members = {
            member.name: member
            for member in manifest.members
            if manifest.holder_of(member).time >= since
        }

    def member(self, name: str, *, of: str) -> Member | None:
        """Return the member `of` as the member `name` of a new backup; None: store it anew."""
        found = self._members.get(of)
        if found is None:
            return None
        return found.model_copy(update={"name": name, "origin": self._manifest.origin_of(found)})


class SpoolSink:
    """Takes the members of a dump as files of a spool folder."""

    def __init__(
        self, folder: Folder, progress: Progress, *, earlier: Earlier | None = None
    ) -> None:
        self._folder = folder
        self._progress = progress
        self._earlier = earlier
        self._members: dict[str, SpooledMember] = {}
        self._lock = threading.Lock()

    @property
    def members(self) -> tuple[SpooledMember, ...]:
        """All complete members, by name."""
        return tuple(self._members[name] for name in sorted(self._members))

    @property
    def sizes(self) -> list[int]:
        """The original bytes of every complete member."""
        return [member.plain.size for member in self._members.values()]

    @contextmanager
    def member(self, name: str) -> Iterator[BinaryIO]:
        """Open a member as a file; an error in the block leaves no file behind."""
        path = self._folder.create(name)
        with translated(self._folder.path), path.open("xb") as file:
            writer = DigestWriter(file, on_bytes=self._progress.add)
            try:
                yield writer
            except BaseException:
                path.unlink()  # an engine may try again in another way
                raise
        self._add(name, writer.digest)

    @contextmanager
    def tree(self, name: str) -> Iterator[Path]:
        """Give a tool a directory; every file in it is a member when the block has ended."""
        root = self._folder.create(name)
        with translated(self._folder.path):
            yield root
            for path in sorted(root.rglob("*")):
                if path.is_file():
                    with path.open("rb") as file:
                        reader = DigestReader(file, on_bytes=self._progress.add)
                        reader.drain()
                    self._add(path.relative_to(self._folder.files).as_posix(), reader.digest)

    def reuse(self, name: str, *, of: str) -> bool:
        """Refer to the member `of` of the earlier backup, if there is one that may be used."""
        found = self._earlier.member(name, of=of) if self._earlier else None
        if found is None:
            return False
        with self._lock:
            self._members[name] = SpooledMember(
                name=name, plain=found.plain, current=found.stored, origin=found.origin
            )
        return True

    def _add(self, name: str, digest: Digest) -> None:
        with self._lock:
            self._members[name] = SpooledMember(name=name, plain=digest, current=digest)


class StoreSink:
    """Takes the members of a dump through `stages` straight into a store: nothing on disk."""

    def __init__(
        self,
        store: Store,
        ref: BackupRef,
        attempt: str,
        stages: Sequence[Stage],
        progress: Progress,
        *,
        earlier: Earlier | None = None,
    ) -> None:
        self._store = store
        self._earlier = earlier
        self._ref = ref
        self._attempt = attempt
        self._stages = stages
        self._progress = progress
        self._members: dict[str, Member] = {}
        self._lock = threading.Lock()

    @property
    def members(self) -> tuple[Member, ...]:
        """All complete members, by name."""
        return tuple(self._members[name] for name in sorted(self._members))

    @property
    def sizes(self) -> list[int]:
        """The original bytes of every complete member."""
        return [member.plain.size for member in self._members.values()]

    @contextmanager
    def member(self, name: str) -> Iterator[BinaryIO]:
        """Open a member as an object; an error in the block leaves no object behind."""
        with self._store.writer(self._ref.member_key(self._attempt, name)) as out:
            stored = DigestWriter(out)
            with forward_all(self._stages, stored, member=name) as first:
                plain = DigestWriter(first, on_bytes=self._progress.add)
                yield plain
        with self._lock:
            self._members[name] = Member(name=name, plain=plain.digest, stored=stored.digest)

    def tree(self, name: str) -> None:  # noqa: ARG002 - the protocol's answer for "no disk"
        """Return None: a tool that needs a directory cannot have one here."""
        return

    def reuse(self, name: str, *, of: str) -> bool:
        """Refer to the member `of` of the earlier backup, if there is one that may be used."""
        found = self._earlier.member(name, of=of) if self._earlier else None
        if found is None:
            return False
        with self._lock:
            self._members[name] = found
        return True


def transform(
    source: Folder,
    target: Folder,
    members: Sequence[SpooledMember],
    stages: Sequence[Stage],
    *,
    workers: int,
    progress: Progress,
) -> tuple[SpooledMember, ...]:
    """Put every member of `source` through `stages` into `target`, several at once.

    Each member is checked against its digest while it is read, so what a disk has changed since
    the last stage never gets further. Members that an earlier backup holds have no bytes here and
    pass as they are.
    """

    def one(member: SpooledMember) -> SpooledMember:
        with (
            translated(target.path),
            member_path(source.files, member.name).open("rb") as raw,
            target.create(member.name).open("xb") as out,
        ):
            written = DigestWriter(out)
            reader = DigestReader(raw, expected=member.current, name=member.name, store="spool")
            with forward_all(stages, written, member=member.name) as first:
                copy(reader, first, on_bytes=progress.add)
        return member.model_copy(update={"current": written.digest})

    here = [member for member in members if member.origin is None]
    largest_first = sorted(here, key=lambda member: -member.current.size)
    done = in_parallel(one, largest_first, workers=workers)
    done += [member for member in members if member.origin is not None]
    return tuple(sorted(done, key=lambda member: member.name))


def require_content(dump: Dump, sizes: Sequence[int], *, source: str) -> None:
    """Raise `EmptySourceError` for a dump of nothing, unless the source is known to be empty."""
    if not dump.empty and sum(sizes) == 0:
        raise EmptySourceError(
            f"The dump of {source} holds no bytes in {len(sizes)} members",
            remedy="Look whether the source has lost its data, or the backup user the right to "
            "see it. The previous backup is untouched.",
            source=source,
        )
