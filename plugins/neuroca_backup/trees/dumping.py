"""Writing a tree into the members of a backup, or only taking its fingerprint."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import BinaryIO, Protocol

from neuroca_backup.streams import CHUNK_BYTES, write_all
from neuroca_backup.trees.archive import INDEX, TAR, forget, tar_info
from neuroca_backup.trees.entries import Entry, Kind, member_of
from neuroca_backup.trees.reading import (
    STABLE_SECONDS,
    Opened,
    attributes,
    group_name,
    stable,
    user_name,
)
from neuroca_backup.trees.totals import Remarks, Totals
from neuroca_backup.trees.walking import VANISHED, Found

# Smaller files are in the tar and, one at a time, in memory. Each larger one is a member of its
# own: it can be fetched in parallel, and referred to by a later backup.
LARGE_BYTES = 8 * 1024 * 1024
_BLOCK = 512  # bytes that st_blocks counts in, whatever the file system's own blocks are
_TAR_BUFFER = 128 * 1024
_SPECIAL = "is no file, directory or link (a socket, a pipe or a device) and was left out"

# Says where the content of a file is kept already, or None: see `dump`.
Known = Callable[[Found], Entry | None]


class MemberSink(Protocol):
    """Where members go; an engine's sink is one."""

    def member(self, name: str) -> AbstractContextManager[BinaryIO]:
        """Open a member for writing; it counts once the block has ended without an error."""
        ...


def dump(
    found: Iterable[Found],
    sink: MemberSink,
    *,
    remarks: Remarks,
    large: int = LARGE_BYTES,
    known: Known = lambda _: None,
    each: Callable[[Entry, bytes | None], object] = lambda _, __: None,
    seconds: float = STABLE_SECONDS,
) -> Totals:
    """Write everything that `found` (from `walk`) lists; return its counts and fingerprint.

    Files from `large` bytes on become members of their own. `known` may return the entry of an
    earlier backup for a file that has not changed since and whose member the caller has handed to
    the sink: the file is then not read, and its `size`, `sha256` and `member` are that entry's.
    Every other file is read for up to `seconds` until it was read in one state. `each` is given
    every entry as it was written, with its content where that is in the tar.

    Raises:
        TransientError: A file kept changing.
        AccessDeniedError, PermanentError: Something cannot be read.
    """
    totals = Totals()
    with sink.member(INDEX) as index, _tar(sink) as tar:
        store = _Stored(sink, tar, large)
        for entry, content in _entries(found, store, remarks, known, seconds):
            totals.add(entry)
            write_all(index, entry.encode())
            each(entry, content)
            if not entry.member:
                tar.addfile(tar_info(entry), None if content is None else io.BytesIO(content))
                forget(tar)
    return totals


def fingerprint(
    found: Iterable[Found], *, remarks: Remarks, seconds: float = STABLE_SECONDS
) -> str:
    """Return the fingerprint (hex) that `dump` would find, reading everything, writing nothing."""
    totals = Totals()
    for entry, _ in _entries(found, _hashed, remarks, lambda _: None, seconds):
        totals.add(entry)
    return totals.fingerprint


@contextmanager
def _tar(sink: MemberSink) -> Iterator[tarfile.TarFile]:
    with (
        sink.member(TAR) as stream,
        tarfile.open(
            fileobj=stream,
            mode="w|",
            bufsize=_TAR_BUFFER,
            format=tarfile.PAX_FORMAT,
            encoding="utf-8",
            errors="surrogateescape",
        ) as tar,
    ):
        yield tar


# Reads an open file, and returns its size, its SHA-256, its member, and its content where that is
# for the tar.
_Read = Callable[[Found, Opened], tuple[int, str, str, bytes | None]]


class _Stored:
    """Reads small files into memory, and large ones into a member."""

    def __init__(self, sink: MemberSink, tar: tarfile.TarFile, large: int) -> None:
        self._sink = sink
        self._tar = tar
        self._large = large

    def __call__(self, found: Found, opened: Opened) -> tuple[int, str, str, bytes | None]:
        if opened.before.st_size < self._large:
            # One byte more than there should be tells that it has grown.
            content = _up_to(opened.stream, opened.before.st_size + 1)
            opened.confirm(len(content))
            return len(content), hashlib.sha256(content).hexdigest(), "", content
        name = member_of(found.path, opened.attempt)
        # Within the block, so that what was read while it changed never counts.
        with self._sink.member(name) as out:
            size, digest = _digest(opened.stream, lambda data: write_all(out, data))
            opened.confirm(size)
        return size, digest, name, None


def _hashed(_found: Found, opened: Opened) -> tuple[int, str, str, bytes | None]:
    size, digest = _digest(opened.stream, lambda _: None)
    opened.confirm(size)
    return size, digest, "", None


def _digest(stream: BinaryIO, use: Callable[[bytes], object]) -> tuple[int, str]:
    size, running = 0, hashlib.sha256()
    while data := stream.read(CHUNK_BYTES):
        size += len(data)
        running.update(data)
        use(data)
    return size, running.hexdigest()


def _up_to(stream: BinaryIO, limit: int) -> bytes:
    """Return what a raw file has, up to `limit` bytes; one read may give less than all."""
    parts, size = [], 0
    while size < limit and (data := stream.read(limit - size)):
        parts.append(data)
        size += len(data)
    return b"".join(parts)


def _entries(
    found: Iterable[Found], read: _Read, remarks: Remarks, known: Known, seconds: float
) -> Iterator[tuple[Entry, bytes | None]]:
    """Yield an entry for everything that can be backed up, with the content for the tar."""
    first_names: dict[tuple[int, int], str] = {}  # only of files that have several
    for one in found:
        mode = one.status.st_mode
        try:
            if stat.S_ISREG(mode):
                inode = (one.status.st_dev, one.status.st_ino)
                if one.status.st_nlink > 1 and inode in first_names:
                    yield _plain(one, Kind.HARDLINK, target=first_names[inode]), None
                    continue
                yield _file(one, read, known, seconds)
                if one.status.st_nlink > 1:
                    first_names[inode] = one.path
            elif stat.S_ISDIR(mode):
                yield _directory(one), None
            elif stat.S_ISLNK(mode):
                target = os.readlink(one.name, dir_fd=one.folder)
                yield _plain(one, Kind.SYMLINK, target=target), None
            else:
                remarks.add(_SPECIAL, one.path)
        except FileNotFoundError:
            remarks.add(VANISHED, one.path)


def _file(found: Found, read: _Read, known: Known, seconds: float) -> tuple[Entry, bytes | None]:
    def attempt(opened: Opened) -> tuple[Entry, bytes | None]:
        size, digest, member, content = read(found, opened)
        entry = _of_status(found, Kind.FILE, opened.before)
        entry = replace(
            entry,
            size=size,
            sha256=digest,
            member=member,
            sparse=opened.before.st_blocks * _BLOCK < size,
            xattrs=attributes(opened.stream.fileno()),
        )
        return entry, content

    before = known(found)
    if before is None:
        return stable(found, attempt, seconds=seconds)
    entry = replace(
        _of_status(found, Kind.FILE, found.status),
        size=before.size,
        sha256=before.sha256,
        member=before.member,
        sparse=before.sparse,
        xattrs=before.xattrs,
    )
    return entry, None


def _directory(found: Found) -> Entry:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    entry = _of_status(found, Kind.DIRECTORY, found.status)
    try:
        descriptor = os.open(found.name, flags, dir_fd=found.folder)
    except (PermissionError, NotADirectoryError):
        return entry  # whoever lists it next says what is wrong
    try:
        return replace(entry, xattrs=attributes(descriptor))
    finally:
        os.close(descriptor)


def _plain(found: Found, kind: Kind, *, target: str) -> Entry:
    return replace(_of_status(found, kind, found.status), target=target)


def _of_status(found: Found, kind: Kind, status: os.stat_result) -> Entry:
    return Entry(
        path=found.path,
        kind=kind,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        user=user_name(status.st_uid),
        group=group_name(status.st_gid),
        mtime_ns=status.st_mtime_ns,
        section=found.section,
        device=status.st_dev,
        inode=status.st_ino,
        ctime_ns=status.st_ctime_ns,
    )
