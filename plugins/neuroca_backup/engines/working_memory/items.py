"""Keys of Redis in pieces: what a line of a member holds, and the digest of a whole key.

Most keys are one piece. A large one is several, so that none has to be held in memory as a whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from neuroca_backup.memory.digests import Tally
from neuroca_backup.memory.jsonlines import packed, unpacked

STRING, LIST, SET, ZSET, HASH, STREAM = "string", "list", "set", "zset", "hash", "stream"
# What a module's type is kept as: the server's own DUMP of it, which only such a module reads.
OPAQUE = "opaque"
KINDS = (STRING, LIST, SET, ZSET, HASH, STREAM, OPAQUE)
_PAIRS = (HASH, ZSET)

# Elements of a piece: bytes; pairs of bytes (field and value, member and score); of a stream its
# entries, (id, (name, value, name, value, ...)).
Element = Any


@dataclass(frozen=True, slots=True)
class Piece:
    """A key, or a part of a large one; `kind` and `expires_at` are those of the whole key.

    `first` and `more` say where in the key the piece is. `expires_at` is in ms since 1970, 0 for
    never. `stream` and `group` hold what a stream has beside its entries, see reading.py. `changed`
    says that somebody wrote to the key while its pieces were read.
    """

    key: bytes
    kind: str
    expires_at: int = 0
    elements: list[Element] = field(default_factory=list)
    first: bool = True
    more: bool = False
    changed: bool = False
    stream: Mapping[str, Any] | None = None
    group: Mapping[str, Any] | None = None

    def record(self) -> dict[str, Any]:
        """Return the object of a line."""
        found: dict[str, Any] = {"key": packed(self.key)}
        if self.first:
            found["type"] = self.kind
            if self.expires_at:
                found["expires_at"] = self.expires_at
        else:
            found["continues"] = True
        for name, value in (("more", self.more), ("changed", self.changed)):
            if value:
                found[name] = True
        for name, words in (("stream", self.stream), ("group", self.group)):
            if words is not None:
                found[name] = dict(words)
        found["value"] = [_packed(self.kind, one) for one in self.elements]
        return found

    @classmethod
    def of(cls, record: Mapping[str, Any], before: Piece | None) -> Piece:
        """Return the piece of a line; `before` is the piece of the line before it.

        Raises:
            ValueError: It is none, or does not continue the one before.
        """
        continued = bool(record.get("continues"))
        unfinished = before is not None and before.more
        if continued != unfinished:
            raise ValueError("a key that is cut off")
        key = unpacked(record.get("key"))
        if continued:
            if before is None or before.key != key:
                raise ValueError("a key that is cut off")
            kind, expires_at = before.kind, before.expires_at
        else:
            kind, expires_at = str(record.get("type")), record.get("expires_at", 0)
            if kind not in KINDS or type(expires_at) is not int or expires_at < 0:
                raise ValueError("a type or an expiry that there is not")
        value = record.get("value")
        if not isinstance(value, list):
            raise ValueError("no value")  # noqa: TRY004 - of a line that is wrong, not of a call
        return cls(
            key=key,
            kind=kind,
            expires_at=expires_at,
            elements=[_unpacked(kind, one) for one in value],
            first=not continued,
            more=record.get("more") is True,
            changed=record.get("changed") is True,
            stream=_words(record.get("stream")),
            group=_words(record.get("group")),
        )


class KeyDigest:
    """The digest of one key, gathered from its pieces: type, name and value, without expiry.

    Elements of sets, hashes and sorted sets count in any order.
    """

    def __init__(self, piece: Piece) -> None:
        self._key, self._kind = piece.key, piece.kind
        self._unordered = Tally()
        self._ordered = hashlib.sha256()
        self._expires = piece.expires_at
        self._length = 0

    @property
    def expires_at(self) -> int:
        """When the key expires, in ms since 1970, 0 for never."""
        return self._expires

    @property
    def kind(self) -> str:
        """The key's type."""
        return self._kind

    def add(self, piece: Piece) -> None:
        """Take the next piece, the first one included."""
        for element in piece.elements:
            self._length += 1
            if self._kind in {SET, HASH, ZSET}:
                self._unordered.add(*(element if self._kind in _PAIRS else (element,)))
            elif self._kind == STREAM:
                self._see(element[0], *element[1])
            elif self._kind == STRING:
                self._ordered.update(element)
            else:
                self._see(element)
        if piece.stream is not None:
            self._see(b"stream", json.dumps(piece.stream["last_id"]).encode())
        if piece.group is not None:
            # When an entry was delivered is known to some milliseconds only.
            told = {**piece.group}
            pending = [[one[0], one[1], one[3]] for one in told.pop("pending", [])]
            # A group is told of in one piece or in several: what counts is what they say together.
            if "last_id" in told:
                words = [told["name"], told["last_id"], sorted(map(str, told["consumers"]))]
                self._unordered.add(json.dumps(words).encode())
            for one in pending:
                self._unordered.add(json.dumps([told["name"], *one]).encode())

    def _see(self, *parts: bytes) -> None:
        self._ordered.update(len(parts).to_bytes(8, "big"))
        for part in parts:
            self._ordered.update(len(part).to_bytes(8, "big"))
            self._ordered.update(part)

    def parts(self) -> tuple[bytes, bytes, bytes, bytes]:
        """Return what makes the key what it is, for a `Tally`."""
        ordered, unordered = self._ordered.digest(), self._unordered.digest.encode()
        return self._kind.encode(), self._key, ordered, unordered


def _packed(kind: str, element: Element) -> Any:
    if kind in _PAIRS:
        return [packed(one) for one in element]
    if kind == STREAM:
        return [packed(element[0]), *(packed(one) for one in element[1])]
    return packed(element)


def _unpacked(kind: str, value: Any) -> Element:
    if kind not in {*_PAIRS, STREAM}:
        return unpacked(value)
    if not isinstance(value, list) or (kind in _PAIRS and len(value) != 2) or len(value) < 1:
        raise ValueError("an element that its type has not")
    found = [unpacked(one) for one in value]
    if kind == ZSET:
        float(found[1])
    if kind == STREAM:
        if len(found) % 2 == 0:
            raise ValueError("an entry with a name and no value")
        return found[0], tuple(found[1:])
    return tuple(found)


def _words(value: Any) -> Mapping[str, Any] | None:
    if value is not None and not isinstance(value, dict):
        raise ValueError("words of a stream that are none")
    return value
