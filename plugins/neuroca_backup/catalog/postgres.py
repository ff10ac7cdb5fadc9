"""The catalog in a PostgreSQL database, in a schema of its own: `neuroca_backup`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

import psycopg
from psycopg.rows import TupleRow, dict_row
from psycopg.types.json import Jsonb

from neuroca_backup import sql
from neuroca_backup.catalog import AuditEvent, CatalogEntry, RestoreRecord
from neuroca_backup.errors import (
    AccessDeniedError,
    ConfigurationError,
    IncompatibleVersionError,
    NotFoundError,
    PermanentError,
)
from neuroca_backup.model import document
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.identity import Component
from neuroca_backup.model.manifest import Manifest
from neuroca_backup.model.status import Verification
from neuroca_backup.postgres_session import DEFAULT_DATABASE, connect

_MIGRATION = re.compile(r"(?P<number>\d{4})_(?P<name>[a-z0-9_]+)")
_SCHEMA_LACKING = (
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.InvalidSchemaName,
)


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered step of the schema: `migrations/<number>_<name>.sql`."""

    number: int
    name: str
    text: str

    @property
    def sha256(self) -> str:
        """The digest (hex) of the file, by which an edited migration is found."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def migrations() -> Sequence[Migration]:
    """Return every migration that this program has, in the order they are applied."""
    found = []
    for name in sql.names("catalog/migrations"):
        match = _MIGRATION.fullmatch(PurePosixPath(name).stem)
        if match is None:
            raise PermanentError(
                f"{name} is not the name of a migration",
                remedy="Name it like 0002_what_it_adds.sql.",
                name=name,
            )
        found.append(Migration(int(match["number"]), match["name"], sql.read(name)))
    if [migration.number for migration in found] != list(range(1, len(found) + 1)):
        raise PermanentError(
            "The catalog's migrations are not numbered 1, 2, 3, ... without a gap",
            remedy="Number the files of include/sql/catalog/migrations in their order.",
            numbers=[migration.number for migration in found],
        )
    return found


class PostgresCatalog:
    """The catalog at `endpoint`; each call is one short session and one transaction.

    Every method raises `UnreachableError` or `AccessDeniedError` where the login fails,
    `NotFoundError` where the database is missing, and `PermanentError` where its schema is.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        if not endpoint.database:
            raise ConfigurationError(
                f"The catalog's connection to {endpoint.label} names no database",
                remedy="Give the connection a database (schema, in Airflow's form) of its own.",
                server=endpoint.label,
            )
        self._endpoint = endpoint

    def prepare(self) -> None:
        """Create the database and its schema, or apply the migrations it has not had.

        Any number of processes may call this at once; each migration is applied by one of them.

        Raises:
            AccessDeniedError: The database or schema is missing and the role may not create it.
            IncompatibleVersionError: A newer program migrated this schema.
            PermanentError: A migration was edited after it had been applied.
        """
        self._ensure_database()
        known = migrations()
        with connect(self._endpoint, autocommit=True) as connection:
            for migration in known:
                with connection.transaction():
                    _execute(connection, "begin")
                    _execute(connection, "lock")
                    _apply(connection, migration, known)

    def record_backup(self, manifest: Manifest, *, store: str) -> None:
        """Note that `store` holds this backup."""
        self._write(
            "record_backup",
            manifest.model_dump(exclude={"version", "attempt", "stages", "dump", "members"})
            | {
                "component": manifest.component.value,
                "members": len(manifest.members),
                "plain_size": manifest.plain_size,
                "stored_size": manifest.stored_size,
                "store": store,
            },
        )

    def forget_backup(self, backup_id: str) -> None:
        """Remove a backup that no store holds any more; its history stays."""
        self._write("forget_backup", {"backup_id": backup_id})

    def record_expiry(self, backup_id: str, at: datetime | None) -> None:
        """Note that a backup was marked to be deleted, or (None) taken back."""
        self._write("record_expiry", {"backup_id": backup_id, "expired_at": at})

    def record_stage(self, backup_id: str, stage: str, *, seconds: float, size: int) -> None:
        """Note how long a stage took (seconds) and how many bytes it handled."""
        self._write(
            "record_stage",
            {"backup_id": backup_id, "stage": stage, "seconds": seconds, "size": size},
        )

    def record_verification(self, verification: Verification) -> None:
        """Note the result of a check; the newest one per store is the backup's level there."""
        body = verification.model_dump(exclude={"version"})
        self._write(
            "record_verification",
            body | {"level": int(verification.level), "findings": Jsonb(list(body["findings"]))},
        )

    def record_restore(self, record: RestoreRecord) -> None:
        """Note a restore, whatever its outcome."""
        body = record.model_dump()
        self._write(
            "record_restore",
            body | {"seconds": Jsonb(dict(record.seconds)), "notes": Jsonb(list(record.notes))},
        )

    def record_event(self, event: AuditEvent) -> None:
        """Append to the audit trail."""
        body = event.model_dump(mode="json")
        moment = {"at": event.at.timestamp()}  # the same instant in another zone is the same
        digest = hashlib.sha256(document.canonical(body | moment)).hexdigest()
        self._write(
            "record_event",
            body | {"at": event.at, "details": Jsonb(body["details"]), "sha256": digest},
        )

    def backups(
        self, *, component: Component | None = None, source: str | None = None, limit: int = 100
    ) -> Sequence[CatalogEntry]:
        """Return backups, newest first."""
        chosen = None if component is None else component.value
        rows = self._read("backups", {"component": chosen, "source": source, "limit": limit})
        return [CatalogEntry.model_validate(row) for row in rows]

    def restores(self, *, limit: int = 100) -> Sequence[RestoreRecord]:
        """Return restores, newest first."""
        rows = self._read("restores", {"limit": limit})
        return [RestoreRecord.model_validate(row) for row in rows]

    def events(self, *, limit: int = 100) -> Sequence[AuditEvent]:
        """Return the audit trail, newest first."""
        return [AuditEvent.model_validate(row) for row in self._read("events", {"limit": limit})]

    def _write(self, query: str, parameters: Mapping[str, Any]) -> None:
        with self._session() as connection:
            _execute(connection, query, parameters)

    def _read(self, query: str, parameters: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
        with self._session() as connection, connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(_query(query), parameters).fetchall()

    @contextmanager
    def _session(self) -> Iterator[psycopg.Connection[TupleRow]]:
        with connect(self._endpoint) as connection:
            try:
                _execute(connection, "begin")
                yield connection
            except _SCHEMA_LACKING:
                raise PermanentError(
                    f"The database {self._endpoint.database!r} at {self._endpoint.label} has no "
                    "catalog, or one of an older program",
                    remedy="Make it with `neuroca-backup catalog rebuild`.",
                    server=self._endpoint.label,
                    database=self._endpoint.database,
                ) from None

    def _ensure_database(self) -> None:
        try:
            with connect(self._endpoint):
                return
        except NotFoundError:
            pass
        database = {"database": self._endpoint.database}
        try:
            with connect(self._endpoint, database=DEFAULT_DATABASE, autocommit=True) as connection:
                _execute(connection, "lock_database")
                if not _single(_execute(connection, "database_exists", database)):
                    statement = _single(_execute(connection, "create_database", database))
                    connection.execute(str(statement).encode())
        except AccessDeniedError as error:
            raise AccessDeniedError(
                f"The catalog's database {self._endpoint.database!r} does not exist, and could "
                f"not be created: {error.problem}",
                remedy="Have an administrator create it, owned by the connection's user, or let "
                "that user create databases (ALTER ROLE ... CREATEDB).",
                **error.facts | database,
            ) from None


def _apply(
    connection: psycopg.Connection[TupleRow], migration: Migration, known: Sequence[Migration]
) -> None:
    if not _single(_execute(connection, "bootstrapped")):
        connection.execute(sql.read("catalog/bootstrap.sql").encode())
    applied = {
        number: (name, digest) for number, name, digest in _execute(connection, "migrations")
    }
    newest = max(applied, default=0)
    if newest > len(known):
        raise IncompatibleVersionError(
            f"The catalog was migrated to {newest} by a newer program; this one knows {len(known)}",
            remedy="Upgrade neuroca-backup here, or use a catalog database of its own.",
            found=newest,
            known=len(known),
        )
    if migration.number not in applied:
        connection.execute(migration.text.encode())
        parameters = {"number": migration.number, "name": migration.name}
        _execute(connection, "record_migration", parameters | {"sha256": migration.sha256})
    elif applied[migration.number] != (migration.name, migration.sha256):
        name, digest = applied[migration.number]
        raise PermanentError(
            f"Migration {migration.number} of the catalog was applied as {name!r} with digest "
            f"{digest}, but this program's {migration.name!r} has {migration.sha256}",
            remedy="Undo the edit and put the change into a new migration, or drop the schema "
            "neuroca_backup and run `neuroca-backup catalog rebuild` (the audit trail is lost).",
            number=migration.number,
        )


def _execute(
    connection: psycopg.Connection[TupleRow],
    query: str,
    parameters: Mapping[str, Any] | None = None,
) -> psycopg.Cursor[TupleRow]:
    return connection.execute(_query(query), parameters)


def _query(name: str) -> bytes:
    return sql.read(f"catalog/queries/{name}.sql").encode()


def _single(cursor: psycopg.Cursor[TupleRow]) -> Any:
    row = cursor.fetchone()
    assert row is not None  # noqa: S101 - the query selects one expression
    return row[0]
