"""Dumping: one exported snapshot a database serves `pg_dump`'s workers and the facts alike."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast
from urllib.parse import quote

from neuroca_backup import commands, postgres_session
from neuroca_backup import postgres_facts as facts
from neuroca_backup import postgres_tools as tools
from neuroca_backup.engines import Sink
from neuroca_backup.errors import (
    AccessDeniedError,
    BackupError,
    EmptySourceError,
    IncompatibleVersionError,
    NotFoundError,
)
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.manifest import Dump
from neuroca_backup.streams import copy

if TYPE_CHECKING:
    from neuroca_backup.engines.postgresql import Options

GLOBALS = "globals.sql"
# Under which name a restore loads a database before it is compared; see restore.py.
STAGING = re.compile(r"restoring_[0-9a-f]{12}")
DIRECTORY, CUSTOM = "directory", "custom"

_PROVIDERS = {"i": "icu", "b": "builtin"}


def member_of(database: str) -> str:
    """Return the member name (or, with parts below it, the tree) of a database."""
    return f"databases/{quote(database, safe='')}"


def server_version(endpoint: Endpoint) -> str:
    """Log in and return the server's version."""
    with postgres_session.connect(endpoint) as connection:
        row = connection.execute("SELECT current_setting('server_version')").fetchone()
        assert row is not None  # noqa: S101 - a setting always gives one row
        return str(row[0])


def dump(endpoint: Endpoint, sink: Sink, options: Options) -> Dump:
    """Dump globals and databases to `sink`.

    Raises:
        NotFoundError: A listed database does not exist.
        EmptySourceError: There is no database, or none of them holds a table.
        IncompatibleVersionError: `pg_dump` is older than the server.
    """
    server, client = server_version(endpoint), tools.version("pg_dump")
    if tools.major(client) < tools.major(server):
        raise IncompatibleVersionError(
            f"pg_dump {client} cannot dump a server of version {server} ({endpoint.label})",
            remedy=f"Install PostgreSQL {tools.major(server)} client tools or newer, or name "
            "their folder in NEUROCA_POSTGRES_BIN.",
            client=client,
            server=server,
        )
    databases = _databases(endpoint, options.databases)
    notes = _dump_globals(endpoint, sink)
    found = {name: _dump_database(endpoint, name, sink, options) for name in databases}
    first = next(iter(found.values()))
    empty = not any(_holds_anything(one) for one in found.values())
    if empty and not options.allow_empty:
        raise EmptySourceError(
            f"PostgreSQL at {endpoint.label} has no table in {', '.join(found)}",
            remedy="Look whether the source has lost its data. If it is new and still empty, set "
            "`allow_empty: true` in the source's options until it is not.",
            server=endpoint.label,
            databases=list(found),
        )
    return Dump(
        server_version=server,
        tools={"pg_dump": client},
        consistency={"lsn": first["lsn"], "time": first["time"]},
        facts={
            "databases": found,
            "checksums": options.checksums,
            "superuser": _bootstrap_superuser(endpoint),
        },
        empty=empty,
        notes=tuple(notes),
    )


def _holds_anything(database: dict[str, Any]) -> bool:
    # Every relation but a sequence has columns, or is a table.
    return bool(database["tables"] or database["large_objects"] or "columns" in database["schema"])


def _databases(endpoint: Endpoint, wanted: str | Sequence[str]) -> list[str]:
    with postgres_session.connect(endpoint) as connection:
        rows = connection.execute(
            "SELECT datname FROM pg_catalog.pg_database"
            " WHERE datallowconn AND NOT datistemplate ORDER BY datname"
        ).fetchall()
    # What an interrupted restore has left half loaded is nobody's data.
    present = [str(row[0]) for row in rows if not STAGING.fullmatch(str(row[0]))]
    if isinstance(wanted, str):
        # The maintenance database exists everywhere; it is dumped only if someone put tables there.
        chosen = [name for name in present if name != "postgres" or _has_tables(endpoint, name)]
        if not chosen:
            raise EmptySourceError(
                f"PostgreSQL at {endpoint.label} has no database with data",
                remedy="Check that the connection names the right server.",
                server=endpoint.label,
            )
        return chosen
    missing = sorted(set(wanted) - set(present))
    if missing or not wanted:
        raise NotFoundError(
            f"PostgreSQL at {endpoint.label} has no database {', '.join(missing) or '(none named)'}"
            f"; it has {', '.join(present)}",
            remedy="Correct the source's `databases` option in backup.yaml.",
            server=endpoint.label,
            databases=missing,
        )
    return sorted(wanted)


def _has_tables(endpoint: Endpoint, database: str) -> bool:
    with postgres_session.connect(endpoint, database=database) as connection:
        row = connection.execute(
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_stat_user_tables)"
        ).fetchone()
        return bool(row and row[0])


def _bootstrap_superuser(endpoint: Endpoint) -> str:
    """Return the role that `initdb` made: grants by it cannot be repeated in its name elsewhere."""
    with postgres_session.connect(endpoint) as connection:
        row = connection.execute("SELECT pg_catalog.pg_get_userbyid(10)").fetchone()
        assert row is not None  # noqa: S101 - a function always gives one row
        return str(row[0])


def _dump_globals(endpoint: Endpoint, sink: Sink) -> list[str]:
    base = [tools.find("pg_dumpall"), "--globals-only", "--no-password"]
    try:
        _to_member(endpoint, base, sink, GLOBALS)
    except AccessDeniedError:
        # Managed services show password hashes to nobody.
        _to_member(endpoint, [*base, "--no-role-passwords"], sink, GLOBALS)
        return ["Roles were dumped without their passwords: the user may not read them."]
    return []


def _to_member(
    endpoint: Endpoint,
    argv: Sequence[Any],
    sink: Sink,
    member: str,
    *,
    database: str | None = None,
) -> None:
    env = tools.environment(endpoint, database=database)
    with (
        tools.translated(endpoint),
        sink.member(member) as out,
        commands.started(
            argv, env=env, stdout=subprocess.PIPE, secrets=[endpoint.password]
        ) as process,
    ):
        assert process.stdout is not None  # noqa: S101 - asked for above
        copy(cast("BinaryIO", process.stdout), out)


def _dump_database(
    endpoint: Endpoint, database: str, sink: Sink, options: Options
) -> dict[str, Any]:
    with (
        postgres_session.connect(endpoint, database=database) as connection,
        ThreadPoolExecutor(max_workers=1) as pool,
    ):
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        facts.prepare_session(connection)
        point = connection.execute(
            "SELECT pg_catalog.pg_export_snapshot(),"
            " CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()"
            " ELSE pg_catalog.pg_current_wal_lsn() END::text, now()"
        ).fetchone()
        assert point is not None  # noqa: S101 - functions always give one row
        snapshot, lsn, at = point
        created_like = _created_like(connection, database)
        method = facts.hash_method(connection)
        counting = pool.submit(
            facts.database_facts, connection, checksums=options.checksums, method=method
        )
        try:
            layout = _run_pg_dump(endpoint, database, str(snapshot), sink, options.jobs)
        except BaseException as error:
            if isinstance(error, BackupError) and counting.done():
                # A count that failed has ended the snapshot that pg_dump reads: it is the cause.
                counting.result()
            connection.cancel_safe()
            raise
        return {
            **counting.result(),
            **created_like,
            "hash": method,
            "layout": layout,
            "lsn": str(lsn),
            "time": at.isoformat(),
        }


def _created_like(connection: facts.Connection, database: str) -> dict[str, Any]:
    """Return how the database itself was created, which `pg_restore` needs before it starts."""
    row = connection.execute(
        "SELECT pg_catalog.pg_get_userbyid(datdba), pg_catalog.pg_encoding_to_char(encoding),"
        " datcollate, datctype, pg_catalog.to_jsonb(d)"
        " FROM pg_catalog.pg_database AS d WHERE datname = %s",
        [database],
    ).fetchone()
    assert row is not None  # noqa: S101 - we are connected to it
    *words, columns = row
    found = dict(zip(("owner", "encoding", "collate", "ctype"), words, strict=True))
    # Since version 15 a database may sort by something else than the C library; the columns'
    # names have changed since: https://www.postgresql.org/docs/current/catalog-pg-database.html
    provider = _PROVIDERS.get(columns.get("datlocprovider"))
    if provider is not None:
        found["provider"] = provider
        found["locale"] = columns.get("datlocale") or columns.get("daticulocale")
        found["icu_rules"] = columns.get("daticurules")
    return found


def _run_pg_dump(endpoint: Endpoint, database: str, snapshot: str, sink: Sink, jobs: int) -> str:
    # Uncompressed: zstd follows as a stage of its own. Flags: app-pgdump.html
    base: list[str | Path] = [
        tools.find("pg_dump"),
        "--no-password",
        "--compress=none",
        "--lock-wait-timeout=60s",
        f"--snapshot={snapshot}",
    ]
    tree = sink.tree(member_of(database))
    if tree is None:
        argv = [*base, "--format=custom"]
        _to_member(endpoint, argv, sink, member_of(database), database=database)
        return CUSTOM
    with tools.translated(endpoint), tree as path:
        argv = [*base, "--format=directory", f"--jobs={jobs}", "--no-sync", f"--file={path}"]
        env = tools.environment(endpoint, database=database)
        commands.run(argv, env=env, secrets=[endpoint.password])
    return DIRECTORY
