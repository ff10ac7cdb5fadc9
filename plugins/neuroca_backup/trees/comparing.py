"""How a tree on disk differs from an index, path by path, in one pass over both."""

from __future__ import annotations

import base64
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from neuroca_backup.streams import CHUNK_BYTES
from neuroca_backup.trees.entries import Entry, Kind, order, shown, within
from neuroca_backup.trees.owners import may_own, mode_of, owner_of
from neuroca_backup.trees.placing import Selection, Unit, unit_of
from neuroca_backup.trees.reading import Opened, attributes, stable
from neuroca_backup.trees.totals import Remarks
from neuroca_backup.trees.walking import Found, walk

_KINDS = {
    Kind.DIRECTORY: stat.S_IFDIR,
    Kind.FILE: stat.S_IFREG,
    Kind.HARDLINK: stat.S_IFREG,
    Kind.SYMLINK: stat.S_IFLNK,
}
_ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Change:
    """What a restore would do to one path: add it, remove it, or change what it is.

    `place` is where it is on disk. `aspects` are, by what differs (`content`, `mode`, `owner`,
    `target`, `attributes`, `time`, `kind`), what the backup has and what was found; contents by
    their digests alone. `entry` is None where it is removed; `content` is the backup's, for small
    files of a pass over the contents.
    """

    path: str
    place: Path
    entry: Entry | None
    aspects: Mapping[str, tuple[str, str]]
    content: BinaryIO | None = None

    @property
    def kind(self) -> str:
        """`added`, `removed` or `changed`."""
        if self.entry is None:
            return "removed"
        return "added" if self.aspects.get("path", ("", ""))[1] == _ABSENT else "changed"


def changes(
    entries: Iterable[tuple[Entry, BinaryIO | None]],
    units: Sequence[Unit],
    selection: Selection,
    *,
    built: bool,
    more: Sequence[str] = (),
) -> Iterator[Change]:
    """Yield what differs between the selected entries (of an index) and what is on disk.

    With `built` it is the restored copy that is looked at, wherever it is by now, and times count;
    else the places themselves, without times. `more` are paths below `/` that are there and that
    the backup does not have: each is a removal, with all below it.

    Raises:
        TransientError, AccessDeniedError, PermanentError: Something on disk cannot be read.
    """
    roots = {unit.top: unit.built if built else unit.place for unit in units}
    found = _found(units, roots, more)
    actual = next(found, None)
    for entry, content in entries:
        if not selection.accepts(entry):
            continue
        unit = unit_of(units, entry.path)
        while actual is not None and order(actual.path) < order(entry.path):
            # A directory above a tree is nobody's: no entry describes it.
            if not (within(entry.path, actual.path) and stat.S_ISDIR(actual.status.st_mode)):
                yield _removed(units, roots, actual.path)
            actual = next(found, None)
        place = unit.at(roots[unit.top], entry.path)
        if actual is None or actual.path != entry.path:
            yield Change(entry.path, place, entry, {"path": ("there", _ABSENT)}, content)
            continue
        try:
            aspects = _aspects(entry, actual, times=built)
            if entry.kind is Kind.HARDLINK and not aspects:
                aspects = _link(entry, actual, units, roots)
        except FileNotFoundError:
            aspects = {"path": ("there", _ABSENT)}
        if aspects:
            yield Change(entry.path, place, entry, aspects, content)
        actual = next(found, None)
    while actual is not None:
        yield _removed(units, roots, actual.path)
        actual = next(found, None)


def _found(
    units: Sequence[Unit], roots: Mapping[str, Path], more: Sequence[str]
) -> Iterator[Found]:
    """Yield what is on disk below the roots, in the order of the index, under its paths."""
    remarks = Remarks()
    others = [(path, Path("/") / path, path) for path in more]
    for top, root, _ in sorted(
        [(unit.top, roots[unit.top], unit.top) for unit in units] + others,
        key=lambda one: order(one[2]),
    ):
        if not os.path.lexists(root):
            continue
        if not top:
            if root.is_dir():
                tops = dict.fromkeys(os.listdir(root), "")  # noqa: PTH208 - names, not paths
                yield from walk(root, tops, remarks=remarks)
            continue
        for one in walk(root.parent, {root.name: ""}, remarks=remarks):
            renamed = top + one.path[len(root.name) :]
            yield Found(renamed, "", one.status, one.name, one.folder)


def _removed(units: Sequence[Unit], roots: Mapping[str, Path], path: str) -> Change:
    try:
        unit = unit_of(units, path)
        place = unit.at(roots[unit.top], path)
    except LookupError:
        place = Path("/") / path
    return Change(path, place, None, {"path": (_ABSENT, "there")})


def _aspects(entry: Entry, found: Found, *, times: bool) -> dict[str, tuple[str, str]]:
    status = found.status
    if stat.S_IFMT(status.st_mode) != _KINDS[entry.kind]:
        return {"kind": (entry.kind.value, _word(status.st_mode))}
    pairs: dict[str, tuple[str, str]] = {}
    if entry.kind is Kind.HARDLINK:
        return pairs
    if entry.kind is Kind.FILE:
        pairs["content"] = _contents(entry, found)
    if entry.kind is Kind.SYMLINK:
        text = os.readlink(found.name, dir_fd=found.folder)
        pairs["target"] = (shown(entry.target), shown(text))
    else:
        mode = stat.S_IMODE(status.st_mode)
        pairs["mode"] = (f"{mode_of(entry):04o}", f"{mode:04o}")
        pairs["attributes"] = _attributes(entry, found)
    if may_own():
        pairs["owner"] = (_ids(*owner_of(entry)), _ids(status.st_uid, status.st_gid))
    if times:
        pairs["time"] = (str(entry.mtime_ns), str(status.st_mtime_ns))
    return {aspect: pair for aspect, pair in pairs.items() if pair[0] != pair[1]}


def _link(
    entry: Entry, found: Found, units: Sequence[Unit], roots: Mapping[str, Path]
) -> dict[str, tuple[str, str]]:
    """Return whether the first name of a hard link, where it is restored, is the same file."""
    try:
        unit = unit_of(units, entry.target)
        first = unit.at(roots[unit.top], entry.target).lstat()
    except (LookupError, FileNotFoundError, NotADirectoryError):
        return {}  # it was not chosen, or is missing and told of by itself
    same = first.st_ino == found.status.st_ino or first.st_dev != found.status.st_dev
    return {} if same else {"target": (f"a name of {shown(entry.target)}", "another file")}


def _contents(entry: Entry, found: Found) -> tuple[str, str]:
    if found.status.st_size != entry.size:
        return f"{entry.size} bytes", f"{found.status.st_size} bytes"

    def digest(opened: Opened) -> str:
        running, size = hashlib.sha256(), 0
        while data := opened.stream.read(CHUNK_BYTES):
            running.update(data)
            size += len(data)
        opened.confirm(size)
        return running.hexdigest()

    return f"SHA-256 {entry.sha256}", f"SHA-256 {stable(found, digest)}"


def _attributes(entry: Entry, found: Found) -> tuple[str, str]:
    """Return the extended attributes that differ; one that could not be set was noted then."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(found.name, flags, dir_fd=found.folder)
    try:
        has = attributes(descriptor)
    finally:
        os.close(descriptor)
    missing = {name for name in entry.xattrs if name not in has}
    wanted = {
        name: value
        for name, value in entry.xattrs.items()
        if name not in missing or name.startswith("system.posix_acl")
    }
    return _names(wanted), _names(has)


def _names(attributes: Mapping[str, str]) -> str:
    """Return names with the beginning of a digest: a value may be a secret."""
    return ", ".join(
        f"{shown(name)} ({hashlib.sha256(base64.b64decode(value)).hexdigest()[:12]})"
        for name, value in sorted(attributes.items())
    )


def _ids(uid: int, gid: int) -> str:
    return f"{uid}:{gid}"


def _word(mode: int) -> str:
    kinds = {stat.S_IFDIR: "directory", stat.S_IFREG: "file", stat.S_IFLNK: "symlink"}
    return kinds.get(stat.S_IFMT(mode), "a special file")
