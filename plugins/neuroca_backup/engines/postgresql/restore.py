"""Restoring: load under a name of its own, compare, and only then swap into place.

Until the swap, which is one transaction for all databases, the target is as it was.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from psycopg import sql

from neuroca_backup import commands, postgres_session
from neuroca_backup import postgres_facts as facts
from neuroca_backup import postgres_tools as tools
from neuroca_backup.engines import Difference, Restorable, RestoreTarget
from neuroca_backup.engines.postgresql import scripts
from neuroca_backup.engines.postgresql.dump import CUSTOM, GLOBALS, member_of, server_version
from neuroca_backup.errors import (
    ConfigurationError,
    IncompatibleVersionError,
    NotFoundError,
    TargetRefusedError,
    TransientError,
)
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.manifest import Manifest

_JOBS = 4
_SWAP_SECONDS = 30


def preflight(backup: Restorable, target: RestoreTarget) -> list[str]:
    """Refuse what cannot work before anything is touched; see the protocol."""
    manifest = backup.last
    databases = _databases(backup)
    source, theirs = manifest.dump.server_version, server_version(target.endpoint)
    if tools.major(theirs) < tools.major(source):
        raise IncompatibleVersionError(
            f"A backup of PostgreSQL {source} cannot be restored into {theirs} "
            f"({target.endpoint.label})",
            remedy=f"Restore into a server of version {tools.major(source)} or newer.",
            source=source,
            target=theirs,
        )
    tools.require_reader(manifest)
    taken = [name for name in databases if _holds_data(target.endpoint, name)]
    if taken and not target.replace:
        raise TargetRefusedError(
            f"{target.endpoint.label} has databases with data: {', '.join(taken)}",
            remedy="Restore into an empty server or a sandbox, or confirm an in-place restore; "
            "it keeps them under another name.",
            databases=taken,
        )
    notes = [f"{name} will be kept as {_kept_name(manifest, name, target)}" for name in taken]
    if tools.major(theirs) != tools.major(source):
        notes.append(f"Definitions are not compared between versions {source} and {theirs}.")
    return notes


def load(backup: Restorable, target: RestoreTarget) -> list[str]:
    """Load globals, then every database under its staging name; a repeat starts clean."""
    manifest, files = backup.last, backup.folders[-1]
    endpoint = target.endpoint
    notes = scripts.load_globals(
        endpoint, files / GLOBALS, superuser=manifest.dump.facts.get("superuser", "")
    )
    for database, known in _databases(backup).items():
        staging = _staging_name(manifest, database)
        with postgres_session.connect(endpoint, autocommit=True) as connection:
            connection.execute(
                sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(staging))
            )
            connection.execute(_create(staging, known))
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


def _create(staging: str, known: Mapping[str, Any]) -> sql.Composed:
    """Return the statement that creates a database as the dumped one was created."""
    words = sql.SQL("CREATE DATABASE {} TEMPLATE template0 OWNER {} ENCODING {}").format(
        sql.Identifier(staging), sql.Identifier(known["owner"]), sql.Literal(known["encoding"])
    )
    words += sql.SQL(" LC_COLLATE {} LC_CTYPE {}").format(
        sql.Literal(known["collate"]), sql.Literal(known["ctype"])
    )
    provider = known.get("provider")
    if provider is not None:
        words += sql.SQL(" LOCALE_PROVIDER {} {} {}").format(
            sql.SQL(provider),
            sql.SQL({"icu": "ICU_LOCALE", "builtin": "BUILTIN_LOCALE"}[provider]),
            sql.Literal(known["locale"]),
        )
        if known.get("icu_rules"):
            words += sql.SQL(" ICU_RULES {}").format(sql.Literal(known["icu_rules"]))
    return words


def compare(backup: Restorable, target: RestoreTarget) -> list[Difference]:
    """Take the facts of every loaded database again and return what differs."""
    manifest = backup.last
    same_major = tools.major(server_version(target.endpoint)) == tools.major(
        manifest.dump.server_version
    )
    found: list[Difference] = []
    for database, known in _databases(backup).items():
        name = _loaded_name(manifest, database, target.endpoint)
        with postgres_session.connect(target.endpoint, database=name) as connection:
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            facts.prepare_session(connection)
            now = facts.database_facts(
                connection,
                checksums=manifest.dump.facts["checksums"],
                method=known["hash"],
            )
        found += [
            Difference(*one)
            for one in facts.differences(database, known, now, same_major=same_major)
        ]
    return found


def publish(backup: Restorable, target: RestoreTarget) -> list[str]:
    """Give every loaded database its name in one transaction; a repeat changes nothing more."""
    manifest, files = backup.last, backup.folders[-1]
    endpoint = target.endpoint
    waiting = [
        name for name in _databases(backup) if _exists(endpoint, _staging_name(manifest, name))
    ]
    for name in waiting:
        staging = _staging_name(manifest, name)
        with postgres_session.connect(endpoint, database=staging, autocommit=True) as connection:
            connection.execute("ANALYZE")
    notes = _swap(manifest, waiting, target)
    for name in _databases(backup):
        scripts.load_properties(_archive(files, name), endpoint)
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
    kept = {name: _kept_name(manifest, name, target) for name in replaced}
    deadline = time.monotonic() + _SWAP_SECONDS
    while True:
        try:
            with (
                postgres_session.connect(endpoint, database="template1") as connection,
                connection.transaction(),
            ):
                for name in waiting:
                    if name in kept:
                        _rename(connection, name, kept[name])
                    _rename(connection, _staging_name(manifest, name), name)
            break
        except TransientError:
            # A client reconnected between the termination and the rename.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
    return [
        f"What was in {name} is kept as {beside}; drop it when it is not needed"
        for name, beside in kept.items()
    ]


def _rename(connection: facts.Connection, old: str, new: str) -> None:
    """Rename a database in the transaction of `connection`, ending the sessions it has.

    The sessions end right before: the rename then waits for them, and makes new ones wait.
    """
    # Without this the transaction would go on seeing the sessions of its beginning.
    connection.execute("SELECT pg_catalog.pg_stat_clear_snapshot()")
    connection.execute(
        "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity"
        " WHERE datname = %s AND pid <> pg_catalog.pg_backend_pid()",
        [old],
    )
    connection.execute(
        sql.SQL("ALTER DATABASE {} RENAME TO {}").format(sql.Identifier(old), sql.Identifier(new))
    )


def _archive(files: Path, database: str) -> Path:
    return files.joinpath(*member_of(database).split("/"))


def _databases(backup: Restorable) -> dict[str, Any]:
    """Return the facts of the databases to be restored, by name."""
    if backup.until is not None:
        raise ConfigurationError(
            "A logical dump has one moment, it cannot be restored to another",
            remedy="Choose a backup by its id or by a time before which it was taken; a source "
            "with `method: physical` can be restored to any moment.",
            value=backup.until.isoformat(),
        )
    known: dict[str, Any] = backup.last.dump.facts["databases"]
    missing = sorted(set(backup.only) - set(known))
    if missing:
        raise ConfigurationError(
            f"{backup.last.backup_id} holds no database {', '.join(missing)}",
            remedy=f"It holds {', '.join(known)}.",
            value=missing,
        )
    return {name: known[name] for name in known if not backup.only or name in backup.only}


def _staging_name(manifest: Manifest, database: str) -> str:
    return f"restoring_{_mark(manifest, database)}"


def _kept_name(manifest: Manifest, database: str, target: RestoreTarget) -> str:
    """Return a free name for what is replaced: the same backup may be restored again and again."""
    # 63 bytes is PostgreSQL's limit for a name.
    short = database.encode()[:34].decode(errors="ignore")
    name = f"{short}_before_{_mark(manifest, database)}"
    others = (name, *(f"{name}_{number}" for number in range(2, 1000)))
    return next(other for other in others if not _exists(target.endpoint, other))


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
