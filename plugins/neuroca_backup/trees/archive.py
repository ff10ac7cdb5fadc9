"""Reading the members of a tree again: the index and the tar side by side, in one pass."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO

from neuroca_backup.model.manifest import Manifest
from neuroca_backup.streams import CHUNK_BYTES
from neuroca_backup.trees.entries import Entry, Kind, damaged, shown, within
from neuroca_backup.trees.totals import Totals

INDEX = "index.jsonl"
TAR = "tree.tar"
OpenMember = Callable[[str], BinaryIO]

_LONGEST_LINE = 1024 * 1024  # bytes; paths end at 4 KiB, extended attributes at 64 KiB
_BUFFER = 128 * 1024
_TYPES: Mapping[Kind, bytes] = {
    Kind.DIRECTORY: tarfile.DIRTYPE,
    Kind.FILE: tarfile.REGTYPE,
    Kind.SYMLINK: tarfile.SYMTYPE,
    Kind.HARDLINK: tarfile.LNKTYPE,
}
# As GNU tar and bsdtar read and write extended attributes.
_XATTR = "SCHILY.xattr."


def tar_info(entry: Entry) -> tarfile.TarInfo:
    """Return the tar's header of `entry`."""
    info = tarfile.TarInfo(entry.path)
    info.type = _TYPES[entry.kind]
    info.mode, info.uid, info.gid = entry.mode, entry.uid, entry.gid
    info.uname, info.gname = entry.user, entry.group
    info.size, info.linkname = entry.size, entry.target
    seconds, rest = divmod(entry.mtime_ns, 1_000_000_000)
    info.mtime = seconds
    # A float cannot hold nanoseconds of today's times, so the decimal is written by hand.
    before = entry.mtime_ns < 0
    info.pax_headers = {} if before else {"mtime": f"{seconds}.{rest:09}"}
    info.pax_headers |= {
        _XATTR + name: value.decode("utf-8", "surrogateescape")
        for name, value in entry.attributes().items()
    }
    return info


def forget(tar: tarfile.TarFile) -> None:
    """Let go of the headers that `tar` keeps of every member it has passed."""
    tar.members = []  # type: ignore[attr-defined]  # documented, and missing in the stubs


def read_index(open_member: OpenMember) -> Iterator[Entry]:
    """Yield every entry of the index, in its order.

    Raises:
        DamagedError: A line is no entry, out of order, or below something that is no directory of
            the same tree: a link there could lead a restore elsewhere.
    """
    with open_member(INDEX) as stream:
        leads: list[Entry] = []  # the directories that the entry is in
        previous: Entry | None = None
        totals = Totals()
        while line := stream.readline(_LONGEST_LINE):
            if not line.endswith(b"\n"):
                raise damaged(INDEX, "its last line is cut off")
            entry = Entry.decode(line, name=INDEX)
            try:
                totals.add(entry)
            except ValueError as error:
                raise damaged(INDEX, str(error)) from None
            while leads and not within(entry.path, leads[-1].path):
                leads.pop()
            _require_place(entry, leads, previous)
            if entry.kind is Kind.DIRECTORY:
                leads.append(entry)
            previous = entry
            yield entry


def contents(open_member: OpenMember) -> Iterator[tuple[Entry, BinaryIO | None]]:
    """Yield every entry with its content; None for what has none, and for members of their own.

    A content is good until the next entry is asked for; read to its end, or not at all.

    Raises:
        DamagedError: The index or the tar is damaged, or they contradict each other.
    """
    with open_member(TAR) as stream, _translated():
        tar = _opened(stream)
        with tar:
            for entry in read_index(open_member):
                if entry.member:
                    yield entry, None
                    continue
                info = tar.next()
                forget(tar)
                if info is None:
                    raise damaged(TAR, f"it ends before {shown(entry.path)}")
                _require_same(entry, info)
                yield entry, _content(tar, info, entry)
            _require_end(tar)


def check(manifest: Manifest, open_member: OpenMember) -> None:
    """Read everything: every digest, the index against the tar and against the manifest's facts.

    Raises:
        DamagedError: Something is not what was backed up; names the member.
    """
    held = {member.name for member in manifest.members} - {INDEX, TAR}
    check_index(open_member, manifest.dump.facts)  # first, so that it is known whose fault it is
    for entry, content in contents(open_member):
        if entry.kind is not Kind.FILE:
            continue
        if entry.member:
            if entry.member not in held:
                raise damaged(INDEX, f"{entry.member} is no member of the backup")
            held.discard(entry.member)
            with open_member(entry.member) as stream:
                require_digest(entry, stream)
        elif content is not None:
            require_digest(entry, content)
    if held:
        raise damaged(INDEX, f"it does not name the member {min(held)}")


def require_digest(entry: Entry, stream: BinaryIO, use: Callable[[bytes], object] = len) -> None:
    """Read `stream` to its end, giving every piece to `use`; raise where it is not `entry`'s.

    Raises:
        DamagedError: Size or SHA-256 are others.
    """
    running, size = hashlib.sha256(), 0
    while data := _piece(stream):
        running.update(data)
        size += len(data)
        if size > entry.size:
            break
        use(data)
    if (size, running.hexdigest()) != (entry.size, entry.sha256):
        raise damaged(entry.member or TAR, f"{shown(entry.path)} is not what was backed up")


def _piece(stream: BinaryIO) -> bytes:
    with _translated():
        return stream.read(CHUNK_BYTES)


def check_index(open_member: OpenMember, facts: Mapping[str, Any]) -> None:
    """Read the index alone; raise `DamagedError` where it is not what the manifest counted."""
    totals = Totals()
    for entry in read_index(open_member):
        totals.add(entry)
    for word, value in totals.facts().items():
        if facts.get(word) != value:
            raise damaged(INDEX, f"its {word} are {value}, the manifest says {facts.get(word)}")


def _require_place(entry: Entry, leads: list[Entry], previous: Entry | None) -> None:
    """Refuse an entry below a link or a file, or in a directory that the index left out."""
    if leads:
        if entry.path.rpartition("/")[0] != leads[-1].path:
            raise damaged(INDEX, f"{shown(entry.path)} is in no directory that it names")
        return
    # It begins a tree of its own; in their order it would follow what it is below of.
    if previous is not None and within(entry.path, previous.path):
        raise damaged(INDEX, f"{shown(entry.path)} is below something that is no directory")


def _require_same(entry: Entry, info: tarfile.TarInfo) -> None:
    pairs = {
        "name": (info.name, entry.path),
        "kind": (info.type, _TYPES[entry.kind]),
        "mode": (info.mode, entry.mode),
        "owner": ((info.uid, info.gid), (entry.uid, entry.gid)),
        "names of owners": ((info.uname, info.gname), (entry.user, entry.group)),
        "size": (info.size, entry.size),
        "target": (info.linkname, entry.target),
        "time": (int(info.mtime), entry.mtime_ns // 1_000_000_000),
        "attributes": (_attributes(info), entry.attributes()),
    }
    for what, (found, expected) in pairs.items():
        if found != expected:
            raise damaged(TAR, f"the {what} of {shown(entry.path)} is not the index's")


def _attributes(info: tarfile.TarInfo) -> dict[str, bytes]:
    return {
        word.removeprefix(_XATTR): value.encode("utf-8", "surrogateescape")
        for word, value in info.pax_headers.items()
        if word.startswith(_XATTR)
    }


def _opened(stream: BinaryIO) -> tarfile.TarFile:
    return tarfile.open(
        fileobj=stream, mode="r|", bufsize=_BUFFER, encoding="utf-8", errors="surrogateescape"
    )


def _content(tar: tarfile.TarFile, info: tarfile.TarInfo, entry: Entry) -> BinaryIO | None:
    if entry.kind is not Kind.FILE:
        return None
    found: Any = tar.extractfile(info)
    content: BinaryIO = found
    return content


def _require_end(tar: tarfile.TarFile) -> None:
    """Refuse a tar that holds more than the index names, or is not padded to its full record."""
    if tar.next() is not None:
        raise damaged(TAR, "it holds more than the index names")
    stream: Any = tar.fileobj
    while data := stream.read(CHUNK_BYTES):
        if data.strip(b"\0"):
            raise damaged(TAR, "it goes on after its end")
    if stream.tell() % tarfile.RECORDSIZE:
        raise damaged(TAR, "its end is cut off")


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, UnicodeError, ValueError) as error:
        raise damaged(TAR, f"it is no tar from some point on ({type(error).__name__})") from None
