"""The member `state.jsonl`: every path of the tree at one backup, and where its bytes are.

One JSON object a line: a header, the entries, and a last line with their number. The next
incremental backup reads it, and a restore needs only the state of the backup that was chosen.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, BinaryIO

from neuroca_backup.engines.logs.content import Content, Inflated
from neuroca_backup.engines.logs.pieces import PIECE_BYTES, Piece
from neuroca_backup.streams import write_all
from neuroca_backup.trees import entries
from neuroca_backup.trees.entries import Kind, damaged

NAME = "state.jsonl"
VERSION = 1
_HEADER = {"format": "neuroca-backup logs", "version": VERSION}

# A line is read whole: 100 GB in pieces of 8 MiB take a tenth of this.
_LINE_BYTES = 16 * 1024 * 1024
_READ_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Entry:
    """One path of the tree, and of a file its content.

    `settled` says that its last change was long enough before the reading for the same times to
    mean the same content. `last_seen` (ISO with offset) is of content that has ended: it was at
    this path then, and no file has it any more; "" for what is in the tree.
    """

    tree: entries.Entry
    content: Content | None = None
    settled: bool = False
    last_seen: str = ""

    @property
    def path(self) -> str:
        """The path below the root directory, as in `trees`."""
        return self.tree.path

    @property
    def is_file(self) -> bool:
        """Whether it is a file of the tree."""
        return self.content is not None and not self.last_seen

    @property
    def bytes(self) -> Content:
        """The content of what is a file, or was one."""
        assert self.content is not None  # noqa: S101 - callers have asked
        return self.content


def write(stream: BinaryIO, found: Iterable[Entry]) -> None:
    """Write a state; entries come out in the order in which they are given."""
    write_all(stream, _line(_HEADER))
    count = 0
    for entry in found:
        write_all(stream, _line(_body(entry)))
        count += 1
    write_all(stream, _line({"entries": count}))


def read(stream: BinaryIO, *, name: str = NAME) -> Iterator[Entry]:
    """Yield the entries of a state.

    Raises:
        DamagedError: It is not a state, or not a whole one; names the line.
    """
    lines = _lines(stream, name)
    if next(lines, None) != _HEADER:
        raise damaged(name, f"it does not begin as a state of version {VERSION} does")
    count = 0
    for body in lines:
        if "entries" in body:
            if body != {"entries": count} or next(lines, None) is not None:
                raise damaged(name, f"it has {count} entries and says {body['entries']}")
            return
        count += 1
        try:
            yield _entry(body, name=name)
        except (KeyError, TypeError, ValueError) as error:
            raise damaged(
                name, f"its entry {count} is impossible ({type(error).__name__})"
            ) from None
    raise damaged(name, f"it breaks off after {count} entries")


def fingerprint(found: Iterable[Entry]) -> str:
    """Return the SHA-256 (hex) of contents and metadata, but not times, of a tree in its order."""
    running = hashlib.sha256()
    for one in found:
        running.update(one.tree.fingerprint() + one.last_seen.encode())
    return running.hexdigest()


def _line(body: dict[str, Any]) -> bytes:
    # In ASCII a surrogate escape is written as such, and no name can hold a line's end.
    return json.dumps(body, separators=(",", ":")).encode() + b"\n"


def _lines(stream: BinaryIO, name: str) -> Iterator[dict[str, Any]]:
    """Yield the object in each line; every one has to end with a line feed."""
    rest = b""
    number = 0
    while data := stream.read(_READ_BYTES):
        *whole, rest = (rest + data).split(b"\n")
        if len(rest) > _LINE_BYTES:
            raise damaged(name, f"its line {number + 1} has no end")
        for line in whole:
            number += 1
            yield _parsed(line, number, name)
    if rest:
        raise damaged(name, f"it breaks off within line {number + 1}")


def _parsed(line: bytes, number: int, name: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise damaged(name, f"its line {number} is not a JSON object")
    return found


def _body(entry: Entry) -> dict[str, Any]:
    found: dict[str, Any] = {"tree": json.loads(entry.tree.encode())}
    content = entry.content
    if content is not None:
        found["lines"] = content.lines
        found["head"] = content.head
        found["pieces"] = [[piece.sha256, piece.size] for piece in content.pieces]
        if content.inflated is not None:
            inside = content.inflated
            found["inflated"] = [inside.size, inside.sha256, inside.lines]
    if entry.settled:
        found["settled"] = True
    if entry.last_seen:
        found["last_seen"] = entry.last_seen
    return found


def _entry(body: dict[str, Any], *, name: str) -> Entry:
    """Return the entry of a line; a KeyError, TypeError or ValueError says that it is none."""
    tree = entries.Entry.decode(json.dumps(body["tree"]).encode(), name=name)
    last_seen = body.get("last_seen", "")
    if last_seen and datetime.fromisoformat(last_seen).tzinfo is None:
        raise ValueError(last_seen)
    return Entry(
        tree=tree,
        content=_content(tree, body) if tree.kind is Kind.FILE else None,
        settled=body.get("settled") is True,
        last_seen=last_seen,
    )


def _content(tree: entries.Entry, body: dict[str, Any]) -> Content:
    pieces = tuple(Piece(_sha256(sha256), size) for sha256, size in body["pieces"])
    if sum(piece.size for piece in pieces) != tree.size:
        raise ValueError(tree.size)
    if any(not 0 < piece.size <= PIECE_BYTES for piece in pieces):
        raise ValueError(tree.size)
    inside = body.get("inflated")
    return Content(
        size=tree.size,
        sha256=tree.sha256,
        lines=int(body["lines"]),
        head=str(body["head"]),
        pieces=pieces,
        inflated=Inflated(int(inside[0]), _sha256(inside[1]), int(inside[2])) if inside else None,
    )


def _sha256(value: str) -> str:
    if len(bytes.fromhex(value)) != hashlib.sha256().digest_size or value != value.lower():
        raise ValueError(value)
    return value
