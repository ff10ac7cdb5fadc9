"""Reading a physical backup's structure without a server, each member once, in a flat memory.

Every file of the cluster is compared with the server's own manifest; every page of WAL says where
it belongs.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from neuroca_backup.engines.postgresql_physical import basebackup, lsn, wal
from neuroca_backup.engines.postgresql_physical.dump import WAL
from neuroca_backup.errors import DamagedError
from neuroca_backup.model.manifest import Manifest
from neuroca_backup.streams import CHUNK_BYTES, RawStream

OpenMember = Callable[[str], BinaryIO]

_FILE = re.compile(rb'^\{ "(?:Path|Encoded-Path)": ')
_SUM = re.compile(rb'^"Manifest-Checksum": "([0-9a-f]{64})"\}\s*$')
_IDENTIFIER = re.compile(rb'^"System-Identifier": (\d+),')
_TAR_BLOCK = 512
_END_OF_TAR = bytes(2 * _TAR_BLOCK)
_WAL_IN_TAR = re.compile(r"pg_wal/([0-9A-F]{24})")

# https://doxygen.postgresql.org/xlog__internal_8h_source.html: XLogPageHeaderData,
# XLogLongPageHeaderData, in the byte order of the server, which is that of every machine we know.
_PAGE_BYTES = 8192
_PAGE = struct.Struct("<HHIQ")  # magic, flags, timeline, address
_FIRST_PAGE = struct.Struct("<HHIQIIQII")  # ..., rest, padding, system, segment, block
_RECORD_BYTES = 24
_SHORT_HEADER_BYTES = 24
_SWITCH = (0x40, 0)  # info and resource manager of the record that ends a segment early


@dataclass(frozen=True, slots=True)
class Listed:
    """What the server's manifest says of a file."""

    size: int
    sha256: str


def check(manifest: Manifest, open_member: OpenMember) -> None:
    """Check the base backup and the WAL.

    Raises:
        DamagedError: A member lacks something, or holds something else; names it.
    """
    facts = manifest.dump.facts
    if facts["method"] != WAL:
        listed, segments = _listed(manifest, open_member), _wal_in_base(manifest)
        _check_tar(manifest, basebackup.TAR, "", open_member, listed=listed, segments=segments)
        for oid in facts["tablespaces"]:
            member, prefix = basebackup.member_of(oid), f"pg_tblspc/{oid}/"
            _check_tar(manifest, member, prefix, open_member, listed=listed, segments={})
        missing = sorted({*listed, *segments})
        if missing:
            some = ", ".join(missing[:5])
            raise _damaged(basebackup.TAR, f"lacks {len(missing)} files it should have: {some}")
    _check_wal(manifest, open_member)


def _listed(manifest: Manifest, open_member: OpenMember) -> dict[str, Listed]:
    """Return the files of the server's manifest, whose own checksum has been compared."""
    name, digest = basebackup.MANIFEST, hashlib.sha256()
    listed: dict[str, Listed] = {}
    identifier = stated = b""
    with open_member(name) as stream:
        for line in _lines(stream):
            if match := _SUM.match(line):
                stated = match[1]
                continue
            digest.update(line)
            if _FILE.match(line):
                path, file = _file(line, name)
                listed[path] = file
            elif match := _IDENTIFIER.match(line):
                identifier = match[1]
    if stated.decode() != digest.hexdigest():
        raise _damaged(name, "is not what its own checksum says")
    ours = manifest.dump.consistency["system_identifier"].encode()
    if identifier and identifier != ours:
        raise _damaged(name, f"is of the cluster {identifier.decode()}, not {ours.decode()}")
    return listed


def _file(line: bytes, name: str) -> tuple[str, Listed]:
    try:
        body: dict[str, Any] = json.loads(line.rstrip().rstrip(b","))
        # What is no UTF-8 is written in hexadecimal digits.
        path = body.get("Path") or bytes.fromhex(body["Encoded-Path"]).decode(
            errors="surrogateescape"
        )
        return path, Listed(size=body["Size"], sha256=body["Checksum"])
    except (ValueError, KeyError) as error:
        raise _damaged(name, f"has a line that is no file: {error}") from error


def _wal_in_base(manifest: Manifest) -> dict[str, int]:
    """Return the segments that a base backup needs, with the positions where they begin."""
    known, size = manifest.dump.consistency, int(manifest.dump.facts["segment_bytes"])
    first = lsn.segment_start(lsn.parse(known["start_lsn"]), size)
    timeline = int(known["timeline"])
    return {
        lsn.segment_name(position, timeline=timeline, segment_bytes=size): position
        for position in range(first, lsn.parse(known["stop_lsn"]), size)
    }


def _check_tar(
    manifest: Manifest,
    member: str,
    prefix: str,
    open_member: OpenMember,
    *,
    listed: dict[str, Listed],
    segments: dict[str, int],
) -> None:
    """Take every file of the tar off `listed` and `segments`, once it is what it should be."""
    with open_member(member) as raw:
        stream = _Tail(raw)
        for entry, content in basebackup.entries(stream, name=member):
            path = prefix + entry.name.removeprefix("./")
            if content is None or path == "backup_manifest":
                continue
            if match := _WAL_IN_TAR.fullmatch(path):
                position = segments.pop(match[1], None)
                if position is not None:  # others were recycled for later use
                    _check_segment(manifest, member, content, start=position, holes=True)
                continue
            known = listed.pop(path, None)
            if known is None:
                raise _damaged(member, f"holds {path}, which its manifest does not name")
            size, sha256 = _digest(content)
            if (size, sha256) != (known.size, known.sha256):
                raise _damaged(member, f"holds {path} with other bytes than its manifest says")
        while stream.read(CHUNK_BYTES):
            pass
    if stream.tail != _END_OF_TAR or stream.size % _TAR_BLOCK:
        raise _damaged(member, "does not end as a tar ends")


def _digest(content: BinaryIO) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    while chunk := content.read(CHUNK_BYTES):
        digest.update(chunk)
        size += len(chunk)
    return size, digest.hexdigest()


class _Tail(RawStream):
    """Reads `source` and knows its size and its last bytes."""

    def __init__(self, source: BinaryIO) -> None:
        super().__init__()
        self._source = source
        self.tail = b""
        self.size = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(size)
        self.size += len(data)
        self.tail = (self.tail + data[-len(_END_OF_TAR) :])[-len(_END_OF_TAR) :]
        return data


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    rest = b""
    while chunk := stream.read(CHUNK_BYTES):
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line + b"\n" for line in whole)
    if rest:
        yield rest


def _check_wal(manifest: Manifest, open_member: OpenMember) -> None:
    """Check that the segments follow each other up to the end of the backup, page by page."""
    known = manifest.dump.consistency
    size, timeline = int(manifest.dump.facts["segment_bytes"]), int(known["timeline"])
    position, end = lsn.parse(known["wal_start"]), lsn.parse(known["end_lsn"])
    present = {one.name for one in manifest.members if one.name.startswith(f"{wal.FOLDER}/")}
    while position < end:
        segment = lsn.segment_name(position, timeline=timeline, segment_bytes=size)
        member = wal.member_of(segment)
        if member not in present:
            raise _damaged(member, "is not part of the backup, and the WAL before and after it is")
        present.discard(member)
        with open_member(member) as stream:
            length, tail = _check_segment(manifest, member, stream, start=position)
        last = position + size >= end
        if last and length != end - position:
            raise _damaged(member, f"ends after {length} bytes instead of {end - position}")
        if not last and length < size - 8 and not _ends_with_switch(tail, length):
            raise _damaged(member, f"ends after {length} bytes, in the midst of the WAL")
        position += size
    if present:
        raise _damaged(min(present), "is WAL that does not belong to this backup")


def _check_segment(
    manifest: Manifest, member: str, stream: BinaryIO, *, start: int, holes: bool = False
) -> tuple[int, bytes]:
    """Check the header of every page; return the number of bytes and the last 64 of them.

    With `holes` a page may be nothing but zeros: the rest of a segment that ended early.
    """
    known, size = manifest.dump.consistency, int(manifest.dump.facts["segment_bytes"])
    system, timeline = int(known["system_identifier"]), int(known["timeline"])
    length, tail, magic = 0, b"", 0
    while page := _page(stream):
        if not length:
            first = _FIRST_PAGE.unpack_from(page.ljust(_FIRST_PAGE.size, b"\0"))
            magic = first[0]
            if first[6:] != (system, size, _PAGE_BYTES):
                raise _damaged(member, "has a segment of WAL that is not of this cluster")
        header = _PAGE.unpack_from(page.ljust(_PAGE.size, b"\0"))
        whole = header[0] == magic and header[2:] == (timeline, start + length)
        if not whole and not (holes and length and not any(page)):
            raise _damaged(
                member, f"has a page that does not belong at {lsn.printed(start + length)}"
            )
        length += len(page)
        tail = (tail + page)[-64:]
    if length > size or (holes and length != size):
        raise _damaged(member, f"has {length} bytes of a segment, which has {size}")
    return length, tail


def _page(stream: BinaryIO) -> bytes:
    """Return the next page; shorter only at the end."""
    page = b""
    while len(page) < _PAGE_BYTES and (piece := stream.read(_PAGE_BYTES - len(page))):
        page += piece
    return page


def _ends_with_switch(tail: bytes, length: int) -> bool:
    """Return whether a segment's last record says that the rest of it was never used.

    The zeros at its end were left out, and its checksum may have had some.
    """
    missing = -length % 8
    padded = tail + bytes(missing)
    over = (length + missing) % _PAGE_BYTES
    if _SHORT_HEADER_BYTES < over < _SHORT_HEADER_BYTES + _RECORD_BYTES:
        # It began on the page before: that page's header is in between.
        cut = len(padded) - over
        padded = padded[:cut] + padded[cut + _SHORT_HEADER_BYTES :]
    record = padded[-_RECORD_BYTES:]
    return (
        len(record) == _RECORD_BYTES
        and struct.unpack_from("<I", record)[0] == _RECORD_BYTES
        and (record[16] & 0xF0, record[17]) == _SWITCH
    )


def _damaged(member: str, what: str) -> DamagedError:
    return DamagedError(
        f"{member} {what}",
        remedy="Restore from another store or an older backup; then look why it was made so.",
        key=member,
    )
