"""Making the copy of a tree beside its place, in folders that nobody else may enter."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from neuroca_backup.errors import AccessDeniedError, PermanentError, SpoolError
from neuroca_backup.streams import write_all
from neuroca_backup.trees.archive import OpenMember, contents, read_index, require_digest
from neuroca_backup.trees.entries import Entry, Kind, damaged, shown, within
from neuroca_backup.trees.owners import may_own, mode_of, owner_of
from neuroca_backup.trees.placing import Selection, Unit, clean, unit_of
from neuroca_backup.trees.totals import Remarks

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_HOLE_BYTES = 64 * 1024
_HOLE = bytes(_HOLE_BYTES)
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_CANNOT = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM, errno.EACCES}
_NOT_OWNED = "belong to who restores them: only root can give files to their owners"
_NO_ATTRIBUTE = "lack an extended attribute that this disk or user cannot set"
_COPIED = "were copied: the other name of the same file is on another disk"


def build(
    open_member: OpenMember, units: Sequence[Unit], selection: Selection, *, prefix: str = "/"
) -> tuple[str, ...]:
    """Make the selected entries in the staging of their units, afresh; return notes.

    Contents, modes, owners, times, links, holes and extended attributes come back as they were;
    what this user may not set is noted. Every content is checked against its digest.

    Raises:
        DamagedError: A member is not what was backed up.
        SpoolError: The disk is full.
        AccessDeniedError, PermanentError: The system refused something.
    """
    clean(units)
    for folder in {unit.staging.parent for unit in units}:
        folder.mkdir(mode=0o700)
    remarks = Remarks(prefix)
    builder = _Builder(open_member, units, remarks, _orphans(open_member, selection))
    for entry, content in contents(open_member):
        with _translated(entry):
            if selection.accepts(entry):
                builder.add(entry, content)
            elif entry.path in builder.orphans:
                builder.set_aside(entry, content)
    builder.finish()
    return remarks.sentences()


def _orphans(open_member: OpenMember, selection: Selection) -> set[str]:
    """Return the files of which only further names (hard links) are selected."""
    if selection.everything:
        return set()
    wanted, selected = set(), set()
    for entry in read_index(open_member):
        if entry.kind is Kind.HARDLINK and selection.accepts(entry):
            wanted.add(entry.target)
    for entry in read_index(open_member) if wanted else ():
        if entry.path in wanted and selection.accepts(entry):
            selected.add(entry.path)
    return wanted - selected


class _Builder:
    """Makes one entry after another; a directory gets its metadata when it is left."""

    def __init__(
        self,
        open_member: OpenMember,
        units: Sequence[Unit],
        remarks: Remarks,
        orphans: set[str],
    ) -> None:
        self._open = open_member
        self._units = units
        self._remarks = remarks
        self._inside: list[tuple[Entry, Path]] = []
        self.orphans = orphans
        self._aside: dict[str, Path] = {}  # orphans, by path: a file without a name of its own yet
        self._named: dict[str, Path] = {}  # orphans that have been given one

    def add(self, entry: Entry, content: BinaryIO | None) -> None:
        """Make `entry`."""
        self._leave(entry.path)
        unit = unit_of(self._units, entry.path)
        path = unit.at(unit.staging, entry.path)
        if not self._inside:
            _make_parents(unit.staging, path, entry)
        if entry.kind is Kind.DIRECTORY:
            path.mkdir(mode=0o700)
            self._inside.append((entry, path))
            return
        if entry.kind is Kind.HARDLINK:
            self._link(entry, path)
            return
        if entry.kind is Kind.SYMLINK:
            path.symlink_to(entry.target)
        else:
            self._write(entry, content, path)
        self._dress(entry, path)

    def set_aside(self, entry: Entry, content: BinaryIO | None) -> None:
        """Keep the content of a file of which only another name is selected."""
        path = self._units[0].staging.parent / f"aside-{len(self._aside)}"
        self._write(entry, content, path)
        self._dress(entry, path)
        self._aside[entry.path] = path

    def finish(self) -> None:
        """Leave every directory, and see that nothing is left over."""
        self._leave(None)
        for unit in self._units:
            if not unit.top and not unit.staging.exists():
                unit.staging.mkdir(mode=0o700)
        for path in self._aside.values():
            path.unlink()

    def _leave(self, path: str | None) -> None:
        while self._inside and (path is None or not within(path, self._inside[-1][0].path)):
            entry, place = self._inside.pop()
            with _translated(entry):
                self._dress(entry, place)

    def _write(self, entry: Entry, content: BinaryIO | None, path: Path) -> None:
        with os.fdopen(os.open(path, _NEW, 0o600), "wb", buffering=0) as out:
            use = _sparse_writer(out) if entry.sparse else _writer(out)
            if content is not None:
                require_digest(entry, content, use)
            else:
                with self._open(entry.member) as stream:
                    require_digest(entry, stream, use)
            out.truncate(entry.size)  # a hole at the end was not written

    def _link(self, entry: Entry, path: Path) -> None:
        if entry.target in self._aside:
            first = self._aside.pop(entry.target)
            first.rename(path)
            self._named[entry.target] = path
            return
        try:
            first = self._named.get(entry.target) or self._built(entry.target)
            os.link(first, path, follow_symlinks=False)
        except LookupError:
            raise damaged("index.jsonl", f"{shown(entry.path)} links to nothing") from None
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            shutil.copyfile(first, path, follow_symlinks=False)
            self._remarks.add(_COPIED, entry.path)
            self._dress(replace(entry, kind=Kind.FILE), path)

    def _built(self, target: str) -> Path:
        unit = unit_of(self._units, target)
        return unit.at(unit.staging, target)

    def _dress(self, entry: Entry, path: Path) -> None:
        """Set owner, mode, attributes and times, in the order in which none undoes another."""
        link = entry.kind is Kind.SYMLINK
        if may_own():
            os.chown(path, *owner_of(entry), follow_symlinks=False)
        elif owner_of(entry) != (os.geteuid(), os.getegid()):
            self._remarks.add(_NOT_OWNED, entry.path)
        if not link:
            path.chmod(mode_of(entry))
        for name, value in entry.attributes().items():
            try:
                os.setxattr(path, name, value, follow_symlinks=False)
            except OSError as error:
                if error.errno not in _CANNOT or name.startswith("system.posix_acl"):
                    raise
                self._remarks.add(_NO_ATTRIBUTE, entry.path)
        os.utime(path, ns=(entry.mtime_ns, entry.mtime_ns), follow_symlinks=False)


def _make_parents(staging: Path, path: Path, entry: Entry) -> None:
    """Make the directories between a unit and a tree within it, which no entry describes.

    A link among them would lead out of the copy.
    """
    parents = [one for one in path.parents if one == staging or staging in one.parents]
    for parent in reversed(parents):
        try:
            parent.mkdir(mode=0o755)
        except FileExistsError:
            if parent.is_symlink() or not parent.is_dir():
                raise damaged(
                    "index.jsonl", f"{shown(entry.path)} is below something that is no directory"
                ) from None


def _writer(out: BinaryIO) -> Callable[[bytes], object]:
    return lambda data: write_all(out, data)


def _sparse_writer(out: BinaryIO) -> Callable[[bytes], object]:
    """Return what writes pieces of a file but leaves holes where they are zeros."""

    def write(data: bytes) -> None:
        for start in range(0, len(data), _HOLE_BYTES):
            block = data[start : start + _HOLE_BYTES]
            if block == _HOLE[: len(block)]:
                out.seek(len(block), os.SEEK_CUR)
            else:
                write_all(out, block)

    return write


@contextmanager
def _translated(entry: Entry) -> Iterator[None]:
    """Turn what the system says while an entry is made into one of this project's errors."""
    try:
        yield
    except OSError as error:
        what = f"{shown(entry.path)} cannot be restored: {error.strerror}"
        if error.errno in _FULL:
            raise SpoolError(
                what,
                remedy="Make room on the target's disk and restore again; nothing was replaced.",
                path=shown(entry.path),
            ) from None
        kind = AccessDeniedError if isinstance(error, PermissionError) else PermanentError
        raise kind(
            what,
            remedy="Restore as root, or into a directory on a disk that can hold it; nothing was "
            "replaced.",
            path=shown(entry.path),
        ) from None
