"""Reading keys from a server: many small ones at once, each as it was at one moment.

What a stream has beside its entries goes into pieces of its own: `stream` holds its last id and,
from Redis 7.0, its counters; `group` a group's name, last id and consumers, or a page of what is
`pending` in it: [id, consumer, delivered at (ms since 1970), how often].
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from neuroca_backup import redis_session as session
from neuroca_backup.engines.working_memory.items import (
    HASH,
    KINDS,
    LIST,
    OPAQUE,
    SET,
    STREAM,
    STRING,
    ZSET,
    Element,
    Piece,
)
from neuroca_backup.errors import PermanentError, TransientError
from neuroca_backup.memory.jsonlines import packed
from neuroca_backup.memory.seen import Seen
from neuroca_backup.model.endpoint import Endpoint

if TYPE_CHECKING:
    import redis

BATCH = 500
_SMALL_BYTES = 1024 * 1024  # of a key that is read at once, by the server's own estimate
_AT_ONCE_BYTES = 16 * 1024 * 1024  # of all keys of one request
_TRIES = 5
_PAGE = 1000
_SCANNED = 1000  # keys that the server looks at for one answer
# A whole key of each type, and how many elements there are in it.
_WHOLE: dict[str, tuple[Any, ...]] = {
    STRING: ("GET",),
    LIST: ("LRANGE", 0, -1),
    SET: ("SMEMBERS",),
    ZSET: ("ZRANGE", 0, -1, "WITHSCORES"),
    HASH: ("HGETALL",),
    OPAQUE: ("DUMP",),
}
_LENGTH = {STRING: "STRLEN", LIST: "LLEN", SET: "SCARD", ZSET: "ZCARD", HASH: "HLEN"}
_WRONG_TYPE = "WRONGTYPE"


class Reading:
    """Reads keys through one session with one logical database."""

    def __init__(self, client: redis.Redis, endpoint: Endpoint) -> None:
        self._client, self._endpoint = client, endpoint
        # Without this, being backed up would count as being used. Redis 7.2 and newer.
        with suppress(PermanentError):
            session.call(client, "CLIENT", "NO-TOUCH", "ON")

    def pieces(self, keys: Sequence[bytes]) -> Iterator[Piece]:
        """Yield the keys that are (still) there, the pieces of each one after the other.

        Raises:
            TransientError: A key has another type each time it is looked at.
        """
        left = list(keys)
        for _ in range(_TRIES):
            small, large = self._by_size(left)
            left = []
            for batch in small:
                found, again = self._whole(batch)
                yield from found
                left += again
            for key, kind, size in large:
                if kind == STREAM:
                    yield from self._stream(key, size)
                else:
                    yield from self._large(key, kind, size)
            if not left:
                return
        raise TransientError(
            f"{len(left)} keys changed their type {_TRIES} times while they were read",
            remedy="It is tried again.",
        )

    def _by_size(
        self, keys: Sequence[bytes]
    ) -> tuple[list[list[tuple[bytes, str]]], list[tuple[bytes, str, int]]]:
        """Return keys to be read together, and keys to be read in pieces with their sizes."""
        asking = self._client.pipeline(transaction=False)
        for key in keys:
            session.call(asking, "TYPE", key)
            session.call(asking, "MEMORY", "USAGE", key)
        answers = asking.execute()
        small: list[list[tuple[bytes, str]]] = [[]]
        large: list[tuple[bytes, str, int]] = []
        together = 0
        for key, word, usage in zip(keys, answers[::2], answers[1::2], strict=True):
            kind = _text(word)
            if kind == "none" or usage is None:
                continue
            kind = kind if kind in KINDS else OPAQUE
            if kind == STREAM or (usage > _SMALL_BYTES and kind != OPAQUE):
                large.append((key, kind, usage))
                continue
            if together + usage > _AT_ONCE_BYTES and small[-1]:
                small.append([])
                together = 0
            small[-1].append((key, kind))
            together += usage
        return [batch for batch in small if batch], large

    def _whole(self, keys: Sequence[tuple[bytes, str]]) -> tuple[list[Piece], list[bytes]]:
        """Read keys in one transaction; return them, and those whose type has changed."""
        asking = self._client.pipeline(transaction=True)
        session.call(asking, "TIME")
        for key, kind in keys:
            session.call(asking, "PTTL", key)
            command, *arguments = _WHOLE[kind]
            session.call(asking, command, key, *arguments)
        (seconds, micros), *answers = asking.execute(raise_on_error=False)
        now = int(seconds) * 1000 + int(micros) // 1000
        found, again = [], []
        for (key, kind), left, value in zip(keys, answers[::2], answers[1::2], strict=True):
            for answer in (left, value):
                if isinstance(answer, Exception) and _WRONG_TYPE not in str(answer):
                    with session.translated(self._endpoint):
                        raise answer
            if isinstance(value, Exception):
                again.append(key)
            elif left != -2 and value is not None:
                expires_at = now + left if left >= 0 else 0
                found.append(Piece(key, kind, expires_at, elements=_elements(kind, value)))
        return found, again

    def _large(self, key: bytes, kind: str, size: int) -> Iterator[Piece]:
        """Yield a key in pieces; the last one says whether somebody wrote to it meanwhile."""
        session.call(self._client, "WATCH", key)
        expires_at = self._expiry(key)
        length = int(session.call(self._client, _LENGTH[kind], key))
        if expires_at is None or not length:
            session.call(self._client, "UNWATCH")
            return
        share = max(1, min(_PAGE, _SMALL_BYTES * length // size))
        head = Piece(key, kind, expires_at, more=True)
        with Seen() as seen:
            for elements in self._pages(key, kind, length, share, seen):
                yield replace(head, elements=elements)
                head = replace(head, first=False)
        yield replace(head, more=False, changed=self._changed())

    def _pages(
        self, key: bytes, kind: str, length: int, share: int, seen: Seen
    ) -> Iterator[list[Element]]:
        if kind == STRING:
            for first in range(0, length, _SMALL_BYTES):
                part = session.call(self._client, "GETRANGE", key, first, first + _SMALL_BYTES - 1)
                yield [part]
            return
        if kind in {LIST, ZSET}:
            for first in range(0, length, share):
                command, *words = ("LRANGE",) if kind == LIST else ("ZRANGE", "WITHSCORES")
                found = session.call(self._client, command, key, first, first + share - 1, *words)
                yield _elements(kind, found)
            return
        cursor = b"0"
        while True:
            scan = "HSCAN" if kind == HASH else "SSCAN"
            cursor, found = session.call(self._client, scan, key, cursor, "COUNT", share)
            elements = _elements(kind, found)
            # A table that is being resized gives some elements twice.
            fresh = [one for one in elements if seen.add(one[0] if kind == HASH else one)]
            if fresh:
                yield fresh
            if int(cursor) == 0:
                return

    def _stream(self, key: bytes, size: int) -> Iterator[Piece]:
        session.call(self._client, "WATCH", key)
        expires_at = self._expiry(key)
        if expires_at is None:
            session.call(self._client, "UNWATCH")
            return
        about = _pairs(session.call(self._client, "XINFO", "STREAM", key))
        length = int(about["length"])
        share = max(1, min(_PAGE, _SMALL_BYTES * max(1, length) // max(1, size)))
        head = Piece(key, STREAM, expires_at, more=True)
        after = b"-"
        while True:
            entries = session.call(self._client, "XRANGE", key, after, "+", "COUNT", share)
            if not entries:
                break
            elements = [(one[0], tuple(one[1])) for one in entries]
            yield replace(head, elements=elements)
            head = replace(head, first=False)
            after = b"(" + entries[-1][0]
        words = {"last_id": _text(about["last-generated-id"])}
        for word in ("entries-added", "max-deleted-entry-id"):
            if word in about:
                words[word] = _text(about[word])
        yield replace(head, stream=words)
        head = replace(head, first=False)
        for group in self._groups(key):
            yield replace(head, group=group)
        yield replace(head, more=False, changed=self._changed())

    def _groups(self, key: bytes) -> Iterator[dict[str, Any]]:
        for answer in session.call(self._client, "XINFO", "GROUPS", key):
            group = _pairs(answer)
            name = group["name"]
            consumers = session.call(self._client, "XINFO", "CONSUMERS", key, name)
            told: dict[str, Any] = {
                "name": packed(name),
                "last_id": _text(group["last-delivered-id"]),
                "consumers": [packed(_pairs(one)["name"]) for one in consumers],
            }
            if group.get("entries-read") is not None:
                told["entries_read"] = int(group["entries-read"])
            yield told
            after = b"-"
            while True:
                pending = session.call(self._client, "XPENDING", key, name, after, "+", _PAGE)
                if not pending:
                    break
                now = self._now()
                there = self._there(key, [one[0] for one in pending])
                page = [
                    [_text(entry), packed(consumer), now - int(idle), int(times)]
                    for entry, consumer, idle, times in pending
                    if entry in there
                ]
                if page:
                    yield {"name": packed(name), "pending": page}
                after = b"(" + pending[-1][0]

    def _there(self, key: bytes, entries: Sequence[bytes]) -> set[bytes]:
        """Return which entries are still in the stream: one that is not can be pending nowhere."""
        asking = self._client.pipeline(transaction=False)
        for entry in entries:
            session.call(asking, "XRANGE", key, entry, entry)
        return {one for one, found in zip(entries, asking.execute(), strict=True) if found}

    def _expiry(self, key: bytes) -> int | None:
        """Return when a key expires, 0 for never, None where it is gone."""
        left = int(session.call(self._client, "PTTL", key))
        if left == -2:
            return None
        return self._now() + left if left >= 0 else 0

    def _now(self) -> int:
        return now_ms(self._client)

    def _changed(self) -> bool:
        """Return whether a watched key was written to: https://redis.io/docs/transactions/."""
        for command in ("MULTI", "PING"):
            session.call(self._client, command)
        return session.call(self._client, "EXEC") is None


@contextmanager
def opened(endpoint: Endpoint, database: int = 0) -> Iterator[redis.Redis]:
    """Open a session whose answers are as the server gives them: bytes, numbers, lists.

    What the client library makes of some answers differs by its version and loses their bytes.
    """
    with session.connect(endpoint, database=database) as client:
        client.response_callbacks.clear()
        yield client


def now_ms(client: redis.Redis) -> int:
    """Return the server's own clock in milliseconds since 1970."""
    seconds, micros = session.call(client, "TIME")
    return int(seconds) * 1000 + int(micros) // 1000


def scan(client: redis.Redis, pattern: bytes) -> Iterator[list[bytes]]:
    """Yield the keys of the session's database that match, in batches; a key may come twice."""
    cursor = b"0"
    while True:
        cursor, keys = session.call(client, "SCAN", cursor, "MATCH", pattern, "COUNT", _SCANNED)
        if keys:
            yield keys
        if int(cursor) == 0:
            return


def _elements(kind: str, value: Any) -> list[Element]:
    if kind in {STRING, OPAQUE}:
        return [value]
    if kind in {LIST, SET}:
        return list(value)
    pairs = zip(value[::2], value[1::2], strict=True)
    if kind == HASH:
        return list(pairs)
    # Servers write the same number in different ways.
    return [(member, repr(float(score)).encode()) for member, score in pairs]


def _pairs(answer: Sequence[Any]) -> dict[str, Any]:
    return {_text(word): value for word, value in zip(answer[::2], answer[1::2], strict=True)}


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
