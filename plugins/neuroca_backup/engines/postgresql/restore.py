"""Restoring: load under a name of its own, compare, and only then swap into place.

Until the swap, which is one transaction for all databases, the target is as it was.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from psycopg import sql

from neuroca_backup import commands, postgres_session
from neuroca_backup.engines import Difference, RestoreTarget
from neuroca_backup.engines.postgresql import facts, tools
from neuroca_backup.engines.postgresql.dump import CUSTOM, GLOBALS, member_of, server_version
from neuroca_backup.errors import (
    IncompatibleVersionError,
    NotFoundError,
    TargetRefusedError,
    TransientError,
)
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.manifest import Manifest

_JOBS = 4
_SWAP_SECONDS = 30
_CREATE_ROLE = re.compile(r'^CREATE ROLE ("(?:[^"]|"")+"|[^\s;]+);$')
# Lines of `pg_restore --list` about the database itself.
_PROPERTY = re.compile(r"^\d+; \d+ \d+ (?:DATABASE PROPERTIES|(?:ACL|COMMENT) - DATABASE) ")
_ALTER_ROLE = re.compile(r'^ALTER ROLE ("(?:[^"]|"")+"|[^\s;]+) ')


def preflight(manifest: Manifest, target: RestoreTarget) -> list[str]:
    """Refuse what cannot work before anything is touched; see the protocol."""
    ours, theirs = tools.version("pg_restore"), server_version(target.endpoint)
    source, dumped_with = manifest.dump.server_version, manifest.dump.tools["pg_dump"]
    if tools.major(theirs) < tools.major(source):
        raise IncompatibleVersionError(
            f"A backup of PostgreSQL {source} cannot be restored into {theirs} "
            f"({target.endpoint.label})",
            remedy=f"Restore into a server of version {tools.major(source)} or newer.",
            source=source,
            target=theirs,
        )
    if tools.major(ours) < tools.major(dumped_with):
        raise IncompatibleVersionError(
            f"pg_restore {ours} cannot read what pg_dump {dumped_with} wrote",
            remedy=f"Install PostgreSQL {tools.major(dumped_with)} client tools or newer.",
            tool=ours,
            written_by=dumped_with,
        )
    taken = [name for name in _names(manifest) if _holds_data(target.endpoint, name)]
    if taken and not target.replace:
        raise TargetRefusedError(
            f"{target.endpoint.label} has databases with data: {', '.join(taken)}",
            remedy="Restore into an empty server or a sandbox, or confirm an in-place restore; "
            "it keeps them under another name.",
            databases=taken,
        )
    notes = [f"{name} will be kept as {_kept_name(manifest, name)}" for name in taken]
    if tools.major(theirs) != tools.major(source):
        notes.append(f"Definitions are not compared between versions {source} and {theirs}.")
    return notes


def load(manifest: Manifest, files: Path, target: RestoreTarget) -> list[str]:
    """Load globals, then every database under its staging name; a repeat starts clean."""
    endpoint = target.endpoint
    notes = _load_globals(endpoint, files / GLOBALS)
    for database, known in manifest.dump.facts["databases"].items():
        staging = _staging_name(manifest, database)
        with postgres_session.connect(endpoint, autocommit=True) as connection:
            connection.execute(
                sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(staging))
            )
            connection.execute(
                sql.SQL(
                    "CREATE DATABASE {} TEMPLATE template0 OWNER {} ENCODING {}"
                    " LC_COLLATE {} LC_CTYPE {}"
                ).format(
                    sql.Identifier(staging),
                    sql.Identifier(known["owner"]),
                    sql.Literal(known["encoding"]),
                    sql.Literal(known["collate"]),
                    sql.Literal(known["ctype"]),
                )
            )
        with tools.translated(endpoint):
            commands.run(
                [
                    tools.find("pg_restore"),
                    "--no-password",
                    "--exit-on-error",
                    "--no-tablespaces",
                    f"--jobs={_JOBS}",
                    f"--format={'custom' if known['layout'] == CUSTOM else 'directory'}",
                    f"--dbname={staging}",
                    _archive(files, database),
                ],
                env=tools.environment(endpoint),
                secrets=[endpoint.password],
            )
    return notes


def compare(manifest: Manifest, target: RestoreTarget) -> list[Difference]:
    """Take the facts of every loaded database again and return what differs."""
    same_major = tools.major(server_version(target.endpoint)) == tools.major(
        manifest.dump.server_version
    )
    found: list[Difference] = []
    for database, known in manifest.dump.facts["databases"].items():
        name = _loaded_name(manifest, database, target.endpoint)
        with postgres_session.connect(target.endpoint, database=name) as connection:
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            facts.prepare_session(connection)
            now = facts.database_facts(
                connection,
                checksums=manifest.dump.facts["checksums"],
                method=known["hash"],
            )
        found += facts.differences(database, known, now, same_major=same_major)
    return found


def publish(manifest: Manifest, files: Path, target: RestoreTarget) -> list[str]:
    """Give every loaded database its name in one transaction; a repeat changes nothing more."""
    endpoint = target.endpoint
    waiting = [
        name for name in _names(manifest) if _exists(endpoint, _staging_name(manifest, name))
    ]
    for name in waiting:
        staging = _staging_name(manifest, name)
        with postgres_session.connect(endpoint, database=staging, autocommit=True) as connection:
            connection.execute("ANALYZE")
    notes = _swap(manifest, waiting, target)
    for name in _names(manifest):
        _load_properties(name, files, endpoint)
    return notes


def _swap(manifest: Manifest, waiting: Sequence[str], target: RestoreTarget) -> list[str]:
    endpoint = target.endpoint
    replaced = [name for name in waiting if _exists(endpoint, name)]
    full = [name for name in replaced if _holds_data(endpoint, name)]
    if full and not target.replace:
        raise TargetRefusedError(
            f"{endpoint.label} got databases with data since the check: {', '.join(full)}",
            remedy="Confirm an in-place restore, or restore elsewhere.",
            databases=full,
        )
    deadline = time.monotonic() + _SWAP_SECONDS
    while True:
        try:
            with (
                postgres_session.connect(endpoint, database="template1") as connection,
                connection.transaction(),
            ):
                for name in waiting:
                    staging = _staging_name(manifest, name)
                    connection.execute(
                        "SELECT pg_catalog.pg_terminate_backend(pid)"
                        " FROM pg_catalog.pg_stat_activity"
                        " WHERE datname = ANY(%s) AND pid <> pg_catalog.pg_backend_pid()",
                        [[name, staging]],
                    )
                    if name in replaced:
                        connection.execute(_rename(name, _kept_name(manifest, name)))
                    connection.execute(_rename(staging, name))
            break
        except TransientError:
            # A client reconnected between the termination and the rename.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
    return [
        f"What was in {name} is kept as {_kept_name(manifest, name)}; drop it when it is not needed"
        for name in replaced
    ]


def _rename(old: str, new: str) -> sql.Composed:
    return sql.SQL("ALTER DATABASE {} RENAME TO {}").format(
        sql.Identifier(old), sql.Identifier(new)
    )


def _load_properties(database: str, files: Path, endpoint: Endpoint) -> None:
    """Apply what belongs to the database as a whole: its settings, privileges and comment."""
    archive = _archive(files, database)
    pg_restore = tools.find("pg_restore")
    contents = commands.run([pg_restore, "--list", archive]).decode()
    wanted = "\n".join(line for line in contents.splitlines() if _PROPERTY.match(line))
    if not wanted:
        return
    with tempfile.NamedTemporaryFile("w", suffix=".list") as chosen:
        chosen.write(wanted + "\n")
        chosen.flush()
        statements = commands.run(
            [pg_restore, "--create", f"--use-list={chosen.name}", "--file=-", archive]
        )
    _run_sql(endpoint, [statements.decode()])


def _archive(files: Path, database: str) -> Path:
    return files.joinpath(*member_of(database).split("/"))


def _load_globals(endpoint: Endpoint, path: Path) -> list[str]:
    """Run the globals, but neither create roles that exist nor alter the one we work as."""
    with postgres_session.connect(endpoint) as connection:
        rows = connection.execute("SELECT rolname FROM pg_catalog.pg_roles").fetchall()
    existing = {str(row[0]) for row in rows}
    skipped: list[str] = []
    with path.open(encoding="utf-8") as lines:
        _run_sql(endpoint, _applicable(lines, existing, endpoint.user, skipped))
    return skipped


def _run_sql(endpoint: Endpoint, lines: Iterable[str]) -> None:
    """Run a script of pg_dumpall or pg_restore in one transaction; its first error fails it."""
    argv = [
        tools.find("psql"),
        "--no-psqlrc",
        "--no-password",
        "--quiet",
        "--set=ON_ERROR_STOP=1",
        "--single-transaction",
        "--dbname=template1",
        "--file=-",
    ]
    with (
        tools.translated(endpoint),
        commands.started(
            argv,
            env=tools.environment(endpoint),
            stdin=subprocess.PIPE,
            secrets=[endpoint.password],
        ) as process,
    ):
        assert process.stdin is not None  # noqa: S101 - asked for above
        for line in lines:
            process.stdin.write(line.encode())
        process.stdin.close()


def _applicable(
    lines: Iterator[str], existing: set[str], own: str, skipped: list[str]
) -> Iterator[str]:
    for line in lines:
        created, altered = _CREATE_ROLE.match(line.rstrip()), _ALTER_ROLE.match(line)
        if created and _unquoted(created[1]) in existing:
            continue
        if altered and _unquoted(altered[1]) == own:
            skipped.append(f"Role {own} was left as it is: this restore works as it.")
            continue
        if line.startswith("CREATE TABLESPACE "):
            skipped.append(f"Not created, its folder belongs to the old host: {line.strip()}")
            continue
        yield line


def _unquoted(identifier: str) -> str:
    if identifier.startswith('"'):
        return identifier[1:-1].replace('""', '"')
    return identifier


def _names(manifest: Manifest) -> list[str]:
    return list(manifest.dump.facts["databases"])


def _staging_name(manifest: Manifest, database: str) -> str:
    return f"restoring_{_mark(manifest, database)}"


def _kept_name(manifest: Manifest, database: str) -> str:
    # 63 bytes is PostgreSQL's limit for a name.
    short = database.encode()[:38].decode(errors="ignore")
    return f"{short}_before_{_mark(manifest, database)}"


def _mark(manifest: Manifest, database: str) -> str:
    return hashlib.sha256(f"{manifest.backup_id}/{database}".encode()).hexdigest()[:12]


def _loaded_name(manifest: Manifest, database: str, endpoint: Endpoint) -> str:
    staging = _staging_name(manifest, database)
    if _exists(endpoint, staging):
        return staging
    if _exists(endpoint, database):
        return database
    raise NotFoundError(
        f"{endpoint.label} has neither {staging} nor {database}: nothing was loaded",
        remedy="Run the restore from its load step on.",
        database=database,
    )


def _exists(endpoint: Endpoint, database: str) -> bool:
    with postgres_session.connect(endpoint, database="template1") as connection:
        row: Any = connection.execute(
            "SELECT FROM pg_catalog.pg_database WHERE datname = %s", [database]
        ).fetchone()
        return row is not None


def _holds_data(endpoint: Endpoint, database: str) -> bool:
    if not _exists(endpoint, database):
        return False
    with postgres_session.connect(endpoint, database=database) as connection:
        row = connection.execute(
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_class AS c"
            " JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace"
            " WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')"
            " AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%')"
        ).fetchone()
        return bool(row and row[0])
