"""A backup of logs: the pieces that the chain does not hold yet, and the state of the tree."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from neuroca_backup import __version__
from neuroca_backup.engines import Parent, Sink
from neuroca_backup.engines.logs import listing, state
from neuroca_backup.engines.logs.capture import ROUNDS, Capture, Captured, Held, Tally
from neuroca_backup.engines.logs.content import Content, Contents
from neuroca_backup.engines.logs.listing import Found, Identity
from neuroca_backup.engines.logs.pieces import PieceWriter
from neuroca_backup.engines.logs.state import Entry
from neuroca_backup.errors import EmptySourceError
from neuroca_backup.model.manifest import Dump
from neuroca_backup.trees import entries
from neuroca_backup.trees.entries import Kind, order, shown
from neuroca_backup.trees.reading import group_name, user_name

if TYPE_CHECKING:
    from neuroca_backup.engines.logs import Options

_BLOCK = 512  # bytes that st_blocks counts in


def dump(sink: Sink, options: Options, parent: Parent | None, *, version: str) -> Dump:
    """Write what `parent`'s chain does not hold, everything without one, and the state of the tree.

    Raises:
        AccessDeniedError, PermanentError: A path may not, or cannot, be read; names it.
        DamagedError: The parent's state is not one.
        EmptySourceError: There is no file at all.
        NotFoundError: A listed path that is not optional matches nothing.
    """
    notes: list[str] = []
    moment = _moment(parent, notes)
    known = Known.of(parent)
    with PieceWriter(sink, known.pieces) as writer:
        capture = Capture(
            partial(listing.take, options.roots, options.exclude),
            writer,
            known.contents,
            known=known.files,
            named=known.named,
        )
        captured = capture.run()
    tree = sorted(_entries(captured), key=lambda one: order(one.path))
    _require_files(tree)
    present = [one.bytes for one in tree if one.is_file]
    gone = sorted(_ended(known, capture, captured, present, moment.isoformat()), key=_by_last_seen)
    with sink.member(state.NAME) as stream:
        state.write(stream, [*tree, *gone])
    notes += _noted(captured)
    fingerprint = state.fingerprint([*tree, *gone])
    return Dump(
        server_version=version,
        tools={"neuroca-backup": __version__, "python": platform.python_version()},
        consistency={"time": moment.isoformat()},
        facts={
            "categories": _categories(tree, capture.new),
            "directories": sum(one.tree.kind is Kind.DIRECTORY for one in tree),
            "symlinks": sum(one.tree.kind is Kind.SYMLINK for one in tree),
            "ended": {"files": len(gone), "bytes": sum(one.bytes.size for one in gone)},
            "listed": _listed(options),
            "exclude": list(options.exclude),
            "archives": writer.archives,
            "pieces": writer.count,
            "new_bytes": writer.size,
            "fingerprint": fingerprint,
        },
        empty=parent is not None and parent.manifest.dump.facts["fingerprint"] == fingerprint,
        notes=tuple(notes),
    )


@dataclass(slots=True)
class Known:
    """What the chain holds, as the state of its last backup says."""

    entries: list[Entry] = field(default_factory=list)
    contents: Contents = field(default_factory=Contents)
    files: dict[Identity, Entry] = field(default_factory=dict)
    named: dict[str, Content] = field(default_factory=dict)
    pieces: set[str] = field(default_factory=set)
    seen_at: str = ""

    @classmethod
    def of(cls, parent: Parent | None) -> Known:
        """Read the state of `parent`; nothing is known without one."""
        known = cls()
        if parent is None:
            return known
        known.seen_at = parent.manifest.dump.consistency["time"]
        with parent.open(state.NAME) as stream:
            for entry in state.read(stream, name=f"{parent.manifest.backup_id}/{state.NAME}"):
                if entry.content is not None:
                    known.add(entry)
        return known

    def add(self, entry: Entry) -> None:
        """Make the content of a file known."""
        self.entries.append(entry)
        self.contents.add(entry.bytes)
        self.pieces.update(piece.sha256 for piece in entry.bytes.pieces)
        if entry.is_file:
            self.files[entry.tree.device, entry.tree.inode] = entry
            self.named[f"/{entry.path}"] = entry.bytes


def _moment(parent: Parent | None, notes: list[str]) -> datetime:
    """Return the moment up to which everything is in the backup: its start.

    A clock that went back must not put a backup before the one that it continues.
    """
    now = datetime.now(UTC)
    if parent is None or parent.manifest.dump.consistent_at <= now:
        return now
    before = parent.manifest.dump.consistent_at
    notes.append(
        f"The clock says {now.isoformat()}, and the backup that this one continues is of "
        f"{before.isoformat()}: this one is given the same moment."
    )
    return before


def _entries(captured: Captured) -> Iterator[Entry]:
    """Yield the tree as the last listing shows it, with what was read of every file."""
    for found in captured.listing.found.values():
        if found.is_file:
            held = captured.held[found.identity]
            yield _file(found, held)
        elif found.is_directory:
            xattrs = listing.attributes_of(found.path)
            yield Entry(replace(_plain(found, Kind.DIRECTORY), xattrs=xattrs))
        else:
            target = listing.target_of(found.path)
            if target is not None:
                yield Entry(replace(_plain(found, Kind.SYMLINK), target=target))


def _plain(found: Found, kind: Kind) -> entries.Entry:
    status = found.status
    return entries.Entry(
        path=found.path.lstrip("/"),
        kind=kind,
        mode=status.st_mode & 0o7777,
        uid=status.st_uid,
        gid=status.st_gid,
        mtime_ns=status.st_mtime_ns,
        user=user_name(status.st_uid),
        group=group_name(status.st_gid),
        section=found.category,
        device=status.st_dev,
        inode=status.st_ino,
        ctime_ns=status.st_ctime_ns,
    )


def _file(found: Found, held: Held, *, last_seen: str = "") -> Entry:
    """Return the entry of a file, its times those at which its end was fixed."""
    tree = replace(
        _plain(found, Kind.FILE),
        mtime_ns=held.status.st_mtime_ns,
        ctime_ns=held.status.st_ctime_ns,
        size=held.content.size,
        sha256=held.content.sha256,
        xattrs=held.xattrs,
        sparse=held.status.st_blocks * _BLOCK < held.content.size,
    )
    return Entry(tree, held.content, settled=held.settled, last_seen=last_seen)


def _ended(
    known: Known, capture: Capture, captured: Captured, present: Sequence[Content], moment: str
) -> Iterator[Entry]:
    """Yield every content that was seen and that no file of the tree has, or goes on with."""
    contents = capture.contents
    continued = {one.sha256 for one in present}
    continued |= {one.inflated.sha256 for one in present if one.inflated}
    for pieces in (*(one.pieces for one in present), *capture.inside):
        continued.update(contents.continued_by(pieces))
    passed = [
        _file(replace(one.found, status=one.status), one, last_seen=moment)
        for one in captured.passed
    ]
    for one in passed:
        longer = set(contents.continued_by(one.bytes.pieces)) - {one.bytes.sha256}
        continued.update(longer)
    before = (replace(one, last_seen=one.last_seen or known.seen_at) for one in known.entries)
    for entry in (*passed, *before):
        if entry.bytes.size and entry.bytes.sha256 not in continued:
            continued.add(entry.bytes.sha256)
            yield entry


def _by_last_seen(entry: Entry) -> tuple[str, str, str]:
    return entry.last_seen, entry.path, entry.bytes.sha256


def _require_files(tree: Sequence[Entry]) -> None:
    if not any(one.is_file for one in tree):
        raise EmptySourceError(
            "The listed paths hold no file at all",
            remedy="Look whether the logs moved or a mount is missing, and correct the paths in "
            "backup.yaml. The previous backup is untouched.",
        )


def _categories(tree: Iterable[Entry], new: dict[str, Tally]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for one in tree:
        if one.is_file:
            counts = found.setdefault(
                one.tree.section,
                {"files": 0, "bytes": 0, "lines": 0, "new_bytes": 0, "new_lines": 0},
            )
            counts["files"] += 1
            counts["bytes"] += one.bytes.size
            counts["lines"] += one.bytes.text_lines
    for category, tally in new.items():
        if category in found:
            found[category] |= {"new_bytes": tally.bytes, "new_lines": tally.lines}
    return dict(sorted(found.items()))


def _listed(options: Options) -> dict[str, list[str]]:
    listed: dict[str, list[str]] = {}
    for root in options.roots:
        listed.setdefault(root.category, []).append(root.pattern)
    return listed


def _noted(captured: Captured) -> Iterator[str]:
    special = captured.listing.special
    if special:
        yield (
            f"{len(special)} sockets, pipes or devices are left out, the first of them "
            f"{shown(min(special))}."
        )
    if not captured.steady:
        yield (
            f"Files appeared or were renamed during each of {ROUNDS} listings; the tree is that of "
            "the last one."
        )
