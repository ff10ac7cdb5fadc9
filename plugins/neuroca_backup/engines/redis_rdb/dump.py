"""Dumping: one RDB over the replication protocol, read and checked while it passes.

The same pass serves both pipelines: nothing but the sink ever holds the data.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from neuroca_backup import commands
from neuroca_backup import redis_session as session
from neuroca_backup.engines import Sink
from neuroca_backup.engines.redis_rdb import rdb, snapshot, tools
from neuroca_backup.engines.redis_rdb.snapshot import MEMBER
from neuroca_backup.errors import (
    DamagedError,
    EmptySourceError,
    InterruptedToolError,
    PermanentError,
    ToolFailedError,
    ToolMissingError,
    TransientError,
)
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.manifest import Dump

if TYPE_CHECKING:
    from neuroca_backup.engines.redis_rdb import Options


def dump(endpoint: Endpoint, sink: Sink, options: Options) -> Dump:
    """Dump every logical database to `sink`.

    Raises:
        EmptySourceError: It holds no key and no function.
        TransientError: It lost its master, was restarted, or another server took its place.
        PermanentError: The server could not write its snapshot.
    """
    before = _source(endpoint)
    notes: list[str] = []
    with _explained(endpoint):
        contents = _transfer(endpoint, sink, before, notes, seconds=options.start_seconds)
    after = _source(endpoint)
    _require_one_server(endpoint, before, after, contents)
    empty = not (contents.keys or contents.functions)
    if empty and not options.allow_empty:
        raise EmptySourceError(
            f"Redis at {endpoint.label} holds no key",
            remedy="Look whether the source has lost its data. If it is new and still empty, set "
            "`allow_empty: true` in the source's options until it is not.",
            server=endpoint.label,
        )
    moment = contents.made_at or datetime.now(UTC)
    return Dump(
        server_version=before.version,
        tools={"redis-cli": tools.version("redis-cli")},
        consistency={
            "time": moment.isoformat(),
            "run_id": before.run_id,
            "replid": contents.aux.get("repl-id") or after.replication_id,
            "offset": contents.aux.get("repl-offset", ""),
        },
        facts=facts_of(contents) | {"sample": options.sample},
        empty=empty,
        notes=tuple(notes),
    )


def facts_of(contents: rdb.Contents) -> dict[str, Any]:
    """Return what a manifest says of an RDB: all keys that are in it, expired or not."""
    return {
        "rdb_version": contents.version,
        "redis_version": contents.aux.get("redis-ver") or contents.aux.get("valkey-ver", ""),
        "used_memory": int(contents.aux.get("used-mem") or 0),
        "databases": {
            str(number): database.facts() for number, database in sorted(contents.databases.items())
        },
        "functions": sorted(contents.functions),
        "modules": contents.modules,
    }


def _source(endpoint: Endpoint) -> session.State:
    found = session.state(endpoint)
    if found.role == "slave" and found.info.get("master_link_status") != "up":
        raise TransientError(
            f"Redis at {endpoint.label} is a replica that has lost its master",
            remedy="It is tried again; a dump of it would be of an unknown age.",
            server=endpoint.label,
        )
    return found


def _require_one_server(
    endpoint: Endpoint, before: session.State, after: session.State, contents: rdb.Contents
) -> None:
    """Raise unless the same server, in the same role, stood there all the time.

    Its replication id changes by itself with its first replica, so one of the two must be the
    snapshot's.
    """
    snapshot = contents.aux.get("repl-id")
    known = {before.replication_id, after.replication_id}
    if (
        before.run_id != after.run_id
        or before.role != after.role
        or (snapshot is not None and snapshot not in known)
    ):
        raise TransientError(
            f"Redis at {endpoint.label} was restarted or failed over while it was dumped",
            remedy="It is tried again.",
            server=endpoint.label,
            run_ids=[before.run_id, after.run_id],
        )


@contextmanager
def _explained(endpoint: Endpoint) -> Iterator[None]:
    """Ask a server that broke off why: it tells its replicas nothing when a disk is full."""
    try:
        yield
    except InterruptedToolError:
        try:
            found = session.state(endpoint).info
        except (TransientError, PermanentError):
            found = {}
        if found.get("rdb_last_bgsave_status", "ok") != "ok":
            raise PermanentError(
                f"Redis at {endpoint.label} could not make its snapshot: its last BGSAVE failed",
                remedy="Make room on the server's disk, or set repl-diskless-sync to yes there so "
                "that it needs none; its log has the reason.",
                server=endpoint.label,
            ) from None
        raise


def _transfer(
    endpoint: Endpoint, sink: Sink, server: session.State, notes: list[str], *, seconds: float
) -> rdb.Contents:
    with sink.member(MEMBER) as out, _checking(server, notes) as check:
        return snapshot.read(endpoint, seconds=seconds, copies=[out, *check])


@contextmanager
def _checking(server: session.State, notes: list[str]) -> Iterator[list[BinaryIO]]:
    """Give what `redis-check-rdb` reads from, if there is one for this server's format.

    It parses every value as the server would, and computes the RDB's own checksum.

    Raises:
        DamagedError: It finds fault.
    """
    with ExitStack() as stack:
        try:
            argv = stack.enter_context(tools.checker())
            ours = tools.version("redis-server")
        except ToolMissingError:
            notes.append("The RDB's structure was read; there is no redis-check-rdb to check more.")
            yield []
            return
        if tools.rdb_version(ours) < tools.rdb_version(server.version):
            notes.append(
                f"The RDB's structure was read; redis-check-rdb {ours} is too old for the rest."
            )
            yield []
            return
        words = stack.enter_context(tempfile.TemporaryFile())
        try:
            with commands.started(argv, stdin=subprocess.PIPE, stdout=words) as process:
                assert process.stdin is not None  # noqa: S101 - asked for above
                yield [cast("BinaryIO", process.stdin)]
                process.stdin.close()
        except ToolFailedError as error:
            if error.facts.get("tool") != str(argv[0]).rpartition("/")[2]:
                raise
            raise DamagedError(
                f"redis-check-rdb {ours} finds {MEMBER} damaged (exit code "
                f"{error.facts['exit_code']})",
                remedy="The server's memory or its disk may be failing: check it, then dump again.",
                key=MEMBER,
            ) from None
