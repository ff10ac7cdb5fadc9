"""Capturing a tree of logs that are written to, rotated and deleted meanwhile.

Every file is read by its descriptor and remembered by device and inode, up to an end that is fixed
when it is opened. Then the tree is listed again, until two listings show the same files under the
same names and each has been read: what was renamed on the way is neither missed nor read twice.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from neuroca_backup.engines.logs import compressed, reading
from neuroca_backup.engines.logs.content import Content, Contents, Inflated, head_of
from neuroca_backup.engines.logs.listing import Found, Identity, Listing, status_of
from neuroca_backup.engines.logs.pieces import Piece, PieceWriter
from neuroca_backup.engines.logs.state import Entry
from neuroca_backup.errors import TransientError
from neuroca_backup.trees.entries import shown
from neuroca_backup.trees.reading import attributes

# Rotation renames a handful of files within a second: three listings do, ten mean trouble.
ROUNDS = 10
# How often a log may be cut while it is read before that is no rotation any more.
_READINGS = 5
# File systems give times in steps of up to two seconds: a younger change may not show in them.
_SETTLED_NS = 2_000_000_000


@dataclass(frozen=True, slots=True)
class Held:
    """What was read of the file `found`; `status` is what `fstat` said when its end was fixed.

    `xattrs` are its extended attributes, values in base64.
    """

    found: Found
    status: os.stat_result
    content: Content
    settled: bool
    xattrs: Mapping[str, str]


@dataclass(slots=True)
class Captured:
    """The tree at the last listing, what every file held, and what was there only meanwhile."""

    listing: Listing
    held: dict[Identity, Held]
    passed: list[Held]
    steady: bool


@dataclass(slots=True)
class Tally:
    """Bytes and ends of lines that no earlier backup of the chain holds."""

    bytes: int = 0
    lines: int = 0


@dataclass(slots=True)
class Capture:
    """One pass over the tree.

    Args:
        list_all: Lists the tree.
        writer: Stores new pieces.
        contents: All contents of the chain; those read now are added.
        known: The files of the parent's state, by device and inode.
        named: The contents of the parent's state, by path.

    Afterwards `new` has what was stored, by category, and `inside` the text of the compressed
    files that were looked into, as pieces.
    """

    list_all: Callable[[], Listing]
    writer: PieceWriter
    contents: Contents
    known: Mapping[Identity, Entry] = field(default_factory=dict)
    named: Mapping[str, Content] = field(default_factory=dict)
    new: dict[str, Tally] = field(default_factory=dict)
    inside: list[Sequence[Piece]] = field(default_factory=list)
    _held: dict[Identity, Held] = field(default_factory=dict)
    _passed: list[Held] = field(default_factory=list)

    def run(self) -> Captured:
        """Read every file once.

        Raises:
            AccessDeniedError, NotFoundError, PermanentError: Something may not, or cannot, be
                read; names it.
            TransientError: Files are replaced or cut faster than they can be read.
        """
        listing = self.list_all()
        unread = self._read_all(listing)
        for _ in range(ROUNDS):
            again = self.list_all()
            same = again.identities() == listing.identities()
            listing = again
            unread = self._read_all(listing)
            if same and not unread:
                break
        for path in unread:
            if status_of(path) is None:
                del listing.found[path]  # deleted since: it is not in the tree
        unread = [path for path in unread if path in listing.found]
        if unread:
            raise TransientError(
                f"{shown(unread[0])} and {len(unread) - 1} more files were replaced in each of "
                f"{ROUNDS} listings, faster than they could be read",
                remedy="It is tried again; back up at a quieter time, or exclude the path.",
                path=shown(unread[0]),
            )
        present = set(listing.identities().values())
        gone = [one for identity, one in self._held.items() if identity not in present]
        return Captured(listing, self._held, [*self._passed, *gone], steady=same)

    def _read_all(self, listing: Listing) -> list[str]:
        """Read what has not been read yet; return the paths whose file was replaced meanwhile."""
        unread = []
        for found in listing.files:
            if self._current(found):
                continue
            if self._read(found) != found.identity:
                unread.append(found.path)
        return unread

    def _current(self, found: Found) -> bool:
        """Return whether what was read of a file is what it still begins with."""
        held = self._held.get(found.identity)
        if held is None or found.status.st_size < held.content.size:
            return False
        if _times(held.status) == _times(found.status):
            return True
        with reading.opened(found) as descriptor:
            return descriptor is not None and self._goes_on(descriptor)

    def _goes_on(self, descriptor: int) -> bool:
        """Return whether an open file has been read, and still begins with what was read then.

        If not, it was cut and written to since, or is another file with the same inode. What has
        come to its end is for the next backup.
        """
        status = os.fstat(descriptor)
        held = self._held.get((status.st_dev, status.st_ino))
        return (
            held is not None
            and status.st_size >= held.content.size
            and held.content.head == head_of(reading.beginning(descriptor), held.content.size)
        )

    def _read(self, found: Found) -> Identity | None:
        """Read the file that is at the path of `found` by now; return which one that was."""
        for _ in range(_READINGS):
            with reading.opened(found) as descriptor:
                if descriptor is None:
                    return None
                status = os.fstat(descriptor)
                identity = (status.st_dev, status.st_ino)
                if self._goes_on(descriptor):
                    return identity
                held = self._hold(descriptor, found, status)
            if held is not None:
                before = self._held.get(identity)
                if before is not None and before.content.sha256 != held.content.sha256:
                    self._passed.append(before)
                self._held[identity] = held
                return identity
        raise TransientError(
            f"{shown(found.path)} was cut in each of {_READINGS} readings",
            remedy="It is tried again; look what truncates this log again and again.",
            path=shown(found.path),
        )

    def _hold(self, descriptor: int, found: Found, status: os.stat_result) -> Held | None:
        """Return what a file holds; None if it was cut while it was read."""
        known = self.known.get((status.st_dev, status.st_ino))
        settled = time.time_ns() - max(status.st_ctime_ns, status.st_mtime_ns) > _SETTLED_NS
        if known is not None and _unchanged(known, status):
            return self._held_as(found, status, known.bytes, descriptor, settled=settled)
        likely = [one for one in (known and known.content, self.named.get(found.path)) if one]
        tally = Tally()

        def keep(data: memoryview, piece: Piece, lines: int) -> None:
            if self.writer.add(data, piece):
                tally.bytes += piece.size
                tally.lines += lines

        try:
            content = reading.read(descriptor, status.st_size, keep, self.contents, likely)
        except reading.ShrunkError as error:
            content, whole = error.content, False
        else:
            # A log that was written to may also have been cut, and have grown again beyond us.
            after = os.fstat(descriptor)
            whole = _times(after) == _times(status) or reading.unchanged(descriptor, content)
        if whole:
            content = self._looked_into(descriptor, content)
        self._count(found.category, tally, text=content.inflated is None)
        self.contents.add(content)
        held = self._held_as(found, status, content, descriptor, settled=settled and whole)
        if whole:
            return held
        if content.size:
            self._passed.append(held)
        return None

    def _held_as(
        self,
        found: Found,
        status: os.stat_result,
        content: Content,
        descriptor: int,
        *,
        settled: bool,
    ) -> Held:
        xattrs = attributes(descriptor)
        return Held(found, status, content, settled, xattrs)

    def _looked_into(self, descriptor: int, content: Content) -> Content:
        """Return `content` with what is in it, where it is compressed."""
        reader = compressed.reader_for(reading.beginning(descriptor))
        if reader is None:
            return content
        inflated = self.contents.inflated(content.sha256)
        if inflated is None:
            found = compressed.look_into(descriptor, content, reader, self.contents)
            if found is None:
                return content
            inflated = Inflated(size=found.size, sha256=found.sha256, lines=found.lines)
            self.inside.append(found.pieces)
        return replace(content, inflated=inflated)

    def _count(self, category: str, tally: Tally, *, text: bool) -> None:
        total = self.new.setdefault(category, Tally())
        total.bytes += tally.bytes
        total.lines += tally.lines if text else 0


def _times(status: os.stat_result) -> tuple[int, int, int]:
    """Return what changes with every write: size, and the times of content and inode."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _unchanged(known: Entry, status: os.stat_result) -> bool:
    """Return whether a file cannot have changed since it was read: nothing of it is read again."""
    return known.settled and _times(status) == (
        known.tree.size,
        known.tree.mtime_ns,
        known.tree.ctime_ns,
    )
