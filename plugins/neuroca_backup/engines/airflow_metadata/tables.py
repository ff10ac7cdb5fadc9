"""The three tables of Airflow's metadata database, as they are where an endpoint leads.

Their columns are read from the server: versions of Airflow differ in them. What a column means is
in Airflow's models: https://github.com/apache/airflow/tree/main/airflow-core/src/airflow/models.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import psycopg
from psycopg import sql
from psycopg.rows import TupleRow

from neuroca_backup import postgres_session
from neuroca_backup.errors import AccessDeniedError, NotFoundError
from neuroca_backup.model.endpoint import Endpoint

Connection = psycopg.Connection[TupleRow]

# Words of an endpoint's extra that are ours, and not libpq's.
FERNET_KEY, FERNET_KEY_FILE = "fernet_key", "fernet_key_file"
_LOCK_TIMEOUT = "30s"


@dataclass(frozen=True, slots=True)
class Table:
    """A table: its `name`, and the column that tells its rows apart, unique but no primary key.

    `word` is what `only` calls a row, and `secrets` are the columns that Airflow encrypts, each
    with the one that says whether it is.
    """

    name: str
    word: str
    key: str
    secrets: Mapping[str, str] = field(default_factory=dict)

    @property
    def member(self) -> str:
        """The member that holds the rows."""
        return f"{self.word}s.jsonl"

    @property
    def hidden(self) -> frozenset[str]:
        """The columns that no backup holds: a number that means nothing elsewhere, and flags."""
        return frozenset({"id", *self.secrets.values()})


TABLES = (
    Table(
        "connection",
        "connection",
        "conn_id",
        {"password": "is_encrypted", "extra": "is_extra_encrypted"},
    ),
    Table("variable", "variable", "key", {"val": "is_encrypted"}),
    Table("slot_pool", "pool", "pool"),
)
MEMBERS = tuple(table.member for table in TABLES)


@dataclass(frozen=True, slots=True)
class Database:
    """What was found: the schema of the tables, their columns by table, and Airflow's revision."""

    schema: str
    columns: Mapping[str, tuple[str, ...]]
    revision: str
    version: str


@contextmanager
def session(endpoint: Endpoint, *, write: bool = False) -> Iterator[Connection]:
    """Open one transaction: of a single snapshot, or one that may `write`.

    Raises:
        UnreachableError, AccessDeniedError, NotFoundError: The login failed.
    """
    with postgres_session.connect(without_keys(endpoint)) as connection:
        if write:
            connection.execute(f"SET lock_timeout = '{_LOCK_TIMEOUT}'")
        else:
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        # A policy that hides rows is an error then, and not a short backup.
        connection.execute("SET row_security = off")
        yield connection


def without_keys(endpoint: Endpoint) -> Endpoint:
    """Return `endpoint` with only what libpq knows in its extra."""
    ours = {FERNET_KEY, FERNET_KEY_FILE}
    return replace(
        endpoint, extra={word: value for word, value in endpoint.extra.items() if word not in ours}
    )


def find(connection: Connection, endpoint: Endpoint) -> Database:
    """Return what the database holds of Airflow.

    Raises:
        NotFoundError: It is no metadata database of Airflow, or this user does not see it.
        AccessDeniedError: This user may not read one of the tables.
    """
    columns: dict[str, tuple[str, ...]] = {}
    schemas = set()
    for table in TABLES:
        rows = connection.execute(
            "SELECT n.nspname, a.attname, has_table_privilege(c.oid, 'SELECT')"
            " FROM pg_catalog.pg_class c"
            " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
            " JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid"
            " WHERE c.oid = pg_catalog.to_regclass(%s)"
            " AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attname",
            [table.name],
        ).fetchall()
        names = tuple(row[1] for row in rows)
        if table.key not in names:
            raise NotFoundError(
                f"The database {endpoint.database or 'postgres'} at {endpoint.label} has no table "
                f"{table.name} of Airflow that the user {endpoint.user} sees",
                remedy="Name Airflow's metadata database in the connection (its schema field); "
                "in a new one run `airflow db migrate` first. The user needs USAGE on the schema.",
                server=endpoint.label,
                value=table.name,
            )
        if not all(row[2] for row in rows):
            raise AccessDeniedError(
                f"The user {endpoint.user} may not read the table {table.name} of Airflow",
                remedy=f'GRANT SELECT ON {table.name} TO "{endpoint.user}";',
                server=endpoint.label,
            )
        schemas.add(rows[0][0])
        columns[table.name] = names
    return Database(
        schema=min(schemas),
        columns=columns,
        revision=_revision(connection),
        version=_version(connection),
    )


def visible(database: Database, table: Table) -> tuple[str, ...]:
    """Return the columns of `table` that a backup holds."""
    return tuple(name for name in database.columns[table.name] if name not in table.hidden)


def identifier(schema: str, table: Table) -> sql.Identifier:
    """Return the qualified name of `table`."""
    return sql.Identifier(schema, table.name)


def _revision(connection: Connection) -> str:
    found = connection.execute("SELECT pg_catalog.to_regclass('alembic_version')").fetchone()
    if found is None or found[0] is None:
        return ""
    row = connection.execute("SELECT min(version_num) FROM alembic_version").fetchone()
    return str(row[0]) if row and row[0] else ""


def _version(connection: Connection) -> str:
    row = connection.execute("SHOW server_version").fetchone()
    return str(row[0]).split()[0] if row else ""
