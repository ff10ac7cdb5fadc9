"""Writing keys to a server: what makes a key of its pieces."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from neuroca_backup import redis_session as session
from neuroca_backup.engines.working_memory.items import (
    HASH,
    LIST,
    OPAQUE,
    SET,
    STREAM,
    STRING,
    ZSET,
    Element,
    Piece,
)
from neuroca_backup.memory.jsonlines import unpacked

if TYPE_CHECKING:
    import redis

Command = tuple[bytes | str | int, ...]
_ADD = {LIST: "RPUSH", SET: "SADD", HASH: "HSET", ZSET: "ZADD"}
_ELEMENTS = 1000  # a command
_HELD_COMMANDS = 1000
_HELD_BYTES = 4 * 1024 * 1024
_COUNTS_SINCE = 7  # streams have counters from this version on
_BEGINNING = "0-1"


class Writer:
    """Sends commands in groups; what is still held is sent by `flush`."""

    def __init__(self, client: redis.Redis, *, version: str) -> None:
        self._client = client
        self._counts = int(version.split(".", maxsplit=1)[0]) >= _COUNTS_SINCE
        self._held: list[Command] = []
        self._bytes = 0
        self._entries = 0  # of the stream that is being written

    def key(self, piece: Piece, name: bytes, *, expires_at: int) -> None:
        """Write a piece of the key `name`; the first one begins it anew, the last has it expire."""
        if piece.first:
            self._send("UNLINK", name)
        for command in self._commands(piece, name):
            self._send(*command)
        if not piece.more and expires_at:
            self._send("PEXPIREAT", name, expires_at)

    def add(self, piece: Piece, name: bytes) -> None:
        """Add the members of a piece to the set or sorted set `name`."""
        for command in _adding(piece.kind, name, piece.elements):
            self._send(*command)

    def flush(self) -> None:
        """Send what is held; an error of any command is raised."""
        if self._held:
            sending = self._client.pipeline(transaction=False)
            for command in self._held:
                session.call(sending, *command)
            sending.execute()
        self._held, self._bytes = [], 0

    def _send(self, *command: bytes | str | int) -> None:
        self._held.append(command)
        self._bytes += sum(len(one) for one in command if isinstance(one, bytes))
        if len(self._held) >= _HELD_COMMANDS or self._bytes >= _HELD_BYTES:
            self.flush()

    def _commands(self, piece: Piece, name: bytes) -> Iterator[Command]:
        if piece.kind == STREAM:
            yield from self._stream(piece, name)
        elif piece.kind == STRING:
            for value in piece.elements:
                yield ("SET" if piece.first else "APPEND"), name, value
        elif piece.kind == OPAQUE:
            for value in piece.elements:
                yield "RESTORE", name, 0, value
        else:
            yield from _adding(piece.kind, name, piece.elements)

    def _stream(self, piece: Piece, name: bytes) -> Iterator[Command]:
        if piece.first:
            self._entries = 0
        for entry, words in piece.elements:
            self._entries += 1
            yield "XADD", name, entry, *words
        if piece.stream is not None:
            if not self._entries:  # only what was in it makes an empty stream
                yield "XADD", name, _BEGINNING, b"", b""
                yield "XDEL", name, _BEGINNING
            yield "XSETID", name, piece.stream["last_id"], *self._counters(piece.stream)
        if piece.group is not None:
            yield from self._group(piece.group, name)

    def _counters(self, about: Any) -> Command:
        added, deleted = about.get("entries-added"), about.get("max-deleted-entry-id")
        if not self._counts or added is None or deleted is None:
            return ()
        return "ENTRIESADDED", added, "MAXDELETEDID", deleted

    def _group(self, group: Any, name: bytes) -> Iterator[Command]:
        called = unpacked(group["name"])
        if "last_id" in group:
            read = group.get("entries_read") if self._counts else None
            words: Command = () if read is None else ("ENTRIESREAD", read)
            yield "XGROUP", "CREATE", name, called, group["last_id"], *words
            for consumer in group["consumers"]:
                yield "XGROUP", "CREATECONSUMER", name, called, unpacked(consumer)
        for entry, consumer, delivered, times in group.get("pending", ()):
            owner = unpacked(consumer)
            # https://redis.io/docs/latest/commands/xclaim/
            yield (
                *("XCLAIM", name, called, owner, 0, entry),
                *("TIME", delivered, "RETRYCOUNT", times, "FORCE", "JUSTID"),
            )


def _adding(kind: str, name: bytes, elements: list[Element]) -> Iterator[Command]:
    for first in range(0, len(elements), _ELEMENTS):
        some = elements[first : first + _ELEMENTS]
        if kind == HASH:
            arguments = [part for pair in some for part in pair]
        elif kind == ZSET:
            arguments = [part for member, score in some for part in (score, member)]
        else:
            arguments = some
        yield _ADD[kind], name, *arguments
