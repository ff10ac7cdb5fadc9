"""A snapshot as `redis-cli --rdb -` writes it: copied while it is read, cut where it ends."""

from __future__ import annotations

import fcntl
import os
import select
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, BinaryIO, cast

from neuroca_backup import commands
from neuroca_backup.engines.redis_rdb import rdb, tools
from neuroca_backup.engines.redis_rdb.reader import CHUNK_BYTES, Reader
from neuroca_backup.errors import DamagedError, InterruptedToolError, UnreachableError
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.streams import write_all

MEMBER = "dump.rdb"

# A server that does not know a snapshot's size before it is made ends it with a random mark, which
# `redis-cli --rdb -` passes on: https://github.com/redis/redis/blob/6.2/src/redis-cli.c (getRDB).
_MARK_BYTES = 40
_STALLED_SECONDS = 300
_EXIT_SECONDS = 30


def read(
    endpoint: Endpoint,
    *,
    seconds: float,
    copies: Sequence[BinaryIO] = (),
    visit: rdb.Visit | None = None,
) -> rdb.Contents:
    """Walk through a snapshot that the server makes now, and write exactly its RDB to `copies`.

    `seconds` is how long the server may take until the first byte: it may write the whole
    snapshot to its own disk before, after another one that is being made.

    Raises:
        InterruptedToolError: It was cut off, or is no RDB.
        UnreachableError: Nothing came for too long.
        AccessDeniedError: The user may not replicate, or nobody may.
    """
    with (
        tools.translated(endpoint),
        commands.started(
            [*tools.cli(endpoint), "--rdb", "-"],
            env=tools.environment(endpoint),
            stdout=subprocess.PIPE,
            secrets=[endpoint.password],
        ) as process,
    ):
        snapshot = _Snapshot(endpoint, process, seconds=seconds, copies=copies)
        try:
            contents = rdb.walk(Reader(snapshot.read), name=MEMBER, visit=visit)
            snapshot.finish(contents.size)
        except DamagedError as error:
            raise InterruptedToolError(
                f"Redis at {endpoint.label} sent no whole RDB: {error.problem}",
                remedy="It is tried again; if it keeps happening check the server with "
                "redis-check-rdb and its log.",
                server=endpoint.label,
            ) from None
        return contents


class _Snapshot:
    """What `redis-cli --rdb -` writes: an RDB, copied while it is read, and perhaps a mark."""

    def __init__(
        self,
        endpoint: Endpoint,
        process: subprocess.Popen[bytes],
        *,
        seconds: float,
        copies: Sequence[BinaryIO],
    ) -> None:
        self._endpoint = endpoint
        self._process = process
        self._pipe = cast("IO[bytes]", process.stdout)
        self._patience = seconds
        self._copies = copies
        self._held = b""
        self._copied = 0
        self._poll = select.poll()
        self._poll.register(self._pipe, select.POLLIN)
        # 64 KB a read would wake three processes for little; more than the system's limit of one
        # megabyte is refused.
        with suppress(PermissionError):
            fcntl.fcntl(self._pipe, fcntl.F_SETPIPE_SZ, CHUNK_BYTES)

    def read(self, size: int) -> bytes:
        """Return the next bytes, `b""` at the end; copy all but the last few, perhaps the mark.

        Raises:
            UnreachableError: Nothing came for too long.
        """
        if not self._poll.poll(self._patience * 1000):
            raise UnreachableError(
                f"Redis at {self._endpoint.label} sent nothing for {self._patience:,.0f} s while "
                "it was dumped",
                remedy="It is tried again. If the server needs longer to begin, raise "
                "`start_seconds` in the source's options.",
                server=self._endpoint.label,
            )
        data = os.read(self._pipe.fileno(), size)
        if not data:
            # How it ended is known before anybody judges what it has sent.
            self._process.wait(_EXIT_SECONDS)
            return b""
        self._patience = _STALLED_SECONDS
        self._held += data
        self._copy(len(self._held) - _MARK_BYTES)
        return data

    def finish(self, size: int) -> None:
        """Copy the rest of the RDB, which has `size` bytes.

        Raises:
            DamagedError: Something else than a mark follows it.
        """
        while self.read(_MARK_BYTES):
            if self._copied > size:
                break
        rest = size - self._copied
        mark = self._held[max(rest, 0) :]
        if rest < 0 or (mark and not (len(mark) == _MARK_BYTES and mark.isalnum())):
            raise DamagedError(
                f"{MEMBER} does not end where its RDB ends, at {size:,} bytes",
                remedy="A dump in the making is made again.",
                key=MEMBER,
            )
        self._copy(rest)

    def _copy(self, count: int) -> None:
        if count <= 0:
            return
        data, self._held = self._held[:count], self._held[count:]
        for copy in self._copies:
            write_all(copy, data)
        self._copied += count
