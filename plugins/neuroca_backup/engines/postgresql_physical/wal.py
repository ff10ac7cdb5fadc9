"""Receiving WAL over the replication protocol, straight into members.

`pg_receivewal` would do the same into a directory, and tell the server at once that it may forget
what was received. Here the slot stands still until a later backup builds on this one, so a backup
that fails after receiving has lost nothing.

https://www.postgresql.org/docs/current/protocol-replication.html
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

from psycopg import pq

from neuroca_backup import postgres_session
from neuroca_backup.engines import Sink
from neuroca_backup.engines.postgresql_physical import lsn
from neuroca_backup.errors import (
    BackupError,
    ChainBrokenError,
    InterruptedToolError,
    PermanentError,
)
from neuroca_backup.model.endpoint import Endpoint

FOLDER = "wal"
_DATA, _KEEPALIVE = b"w", b"k"
_DATA_HEADER = struct.Struct("!cQQq")  # kind, position, end of the server's WAL, clock
_KEEPALIVE_HEADER = struct.Struct("!cQq?")  # kind, end of the server's WAL, clock, wants an answer
# All positions 0: nothing is confirmed, so neither the slot moves nor a commit is held as synced.
_ANSWER = struct.pack("!cQQQq?", b"r", 0, 0, 0, 0, False)
_REMOVED = "has already been removed"


def member_of(segment: str) -> str:
    """Return the member that holds a segment."""
    return f"{FOLDER}/{segment}"


def receive(
    endpoint: Endpoint, sink: Sink, *, start: int, end: int, timeline: int, segment_bytes: int
) -> None:
    """Write the WAL from `start` (where a segment begins) up to `end` to `sink`.

    Each segment is a member. The zeros at a segment's end are left out; the last one ends with
    the byte before `end`.

    Raises:
        ChainBrokenError: The server has removed part of it.
        InterruptedToolError: The server ended the stream early.
    """
    with postgres_session.connect(endpoint, replication=True) as connection:
        chunks = _chunks(connection.pgconn, endpoint, start=start, timeline=timeline)
        position, rest = start, memoryview(b"")
        while position < end:
            name = lsn.segment_name(position, timeline=timeline, segment_bytes=segment_bytes)
            stop = min(position + segment_bytes, end)
            with sink.member(member_of(name)) as out:
                target = _TrailingZerosLeftOut(out)
                while position < stop:
                    if not rest:
                        rest = next(chunks)
                    piece, rest = rest[: stop - position], rest[stop - position :]
                    target.write(piece)
                    position += len(piece)
                if stop == end:
                    target.finish()
        connection.close()  # the server would go on sending for ever


def identify(endpoint: Endpoint) -> tuple[str, int]:
    """Return the system identifier and the timeline of a server.

    Raises:
        AccessDeniedError: The user, or pg_hba.conf, does not allow replication.
    """
    with postgres_session.connect(endpoint, replication=True) as connection:
        found = _run(connection.pgconn, endpoint, "IDENTIFY_SYSTEM", pq.ExecStatus.TUPLES_OK)
        identifier, timeline = found.get_value(0, 0), found.get_value(0, 1)
    if identifier is None or timeline is None:
        raise PermanentError(
            f"PostgreSQL at {endpoint.label} does not say which system it is",
            remedy="Name the primary server itself, no connection pooler.",
        )
    return identifier.decode(), int(timeline)


class _TrailingZerosLeftOut:
    """Writes to `out`, but holds zeros back until something else follows them."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._zeros = 0

    def write(self, data: memoryview) -> None:
        kept = bytes(data).rstrip(b"\0")
        if kept:
            self.finish()
            self._out.write(kept)
        self._zeros += len(data) - len(kept)

    def finish(self) -> None:
        """Write what was held back."""
        while self._zeros:
            count = min(self._zeros, 64 * 1024)
            self._out.write(bytes(count))
            self._zeros -= count


def _chunks(
    connection: pq.abc.PGconn, endpoint: Endpoint, *, start: int, timeline: int
) -> Iterator[memoryview]:
    """Yield the WAL from `start` on, in the pieces in which it arrives; never ends by itself."""
    command = f"START_REPLICATION PHYSICAL {lsn.printed(start)} TIMELINE {timeline}"
    _run(connection, endpoint, command, pq.ExecStatus.COPY_BOTH)
    position = start
    while True:
        size, data = connection.get_copy_data(0)
        if size < 0:
            raise _ended(connection, endpoint, position)
        kind = bytes(data[:1])
        if kind == _KEEPALIVE:
            if _KEEPALIVE_HEADER.unpack_from(data)[3]:
                connection.put_copy_data(_ANSWER)
                connection.flush()
            continue
        if kind != _DATA or _DATA_HEADER.unpack_from(data)[1] != position:
            raise InterruptedToolError(
                f"PostgreSQL at {endpoint.label} sent something else than the WAL after "
                f"{lsn.printed(position)}",
                remedy="It is tried again.",
            )
        piece = data[_DATA_HEADER.size :]
        position += len(piece)
        yield piece


def _run(
    connection: pq.abc.PGconn, endpoint: Endpoint, command: str, wanted: pq.ExecStatus
) -> pq.abc.PGresult:
    found = connection.exec_(command.encode())
    if found.status != wanted:
        raise _refused(found, endpoint, command)
    return found


def _ended(connection: pq.abc.PGconn, endpoint: Endpoint, position: int) -> BackupError:
    found = connection.get_result()
    if found is not None and found.status == pq.ExecStatus.FATAL_ERROR:
        return _refused(found, endpoint, f"sending WAL from {lsn.printed(position)}")
    return InterruptedToolError(
        f"PostgreSQL at {endpoint.label} stopped sending WAL at {lsn.printed(position)}",
        remedy="It is tried again; a server that was promoted or shut down needs a full backup.",
    )


def _refused(found: pq.abc.PGresult, endpoint: Endpoint, what: str) -> BackupError:
    message = found.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b"no reason given"
    words = message.decode(errors="replace")
    if _REMOVED in words or "timeline" in words:
        return ChainBrokenError(
            f"PostgreSQL at {endpoint.label} no longer has the WAL that is needed: {words}",
            remedy="Take a full backup; it begins a new chain.",
            server=endpoint.label,
        )
    return InterruptedToolError(
        f"PostgreSQL at {endpoint.label} refused {what}: {words}",
        remedy="It is tried again; read the server's log if it goes on.",
        server=endpoint.label,
    )
