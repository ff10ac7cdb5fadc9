"""A real metadata database of Airflow on PostgreSQL, and what is in it."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from cryptography.fernet import Fernet
from psycopg import sql

from neuroca_backup.sandbox.airflow_metadata import TABLES
from support.wiring import create_database, databases, session

if TYPE_CHECKING:
    from neuroca_backup.model.endpoint import Endpoint

# What is looked for afterwards in everything that must not hold it.
MARKER = "s3cret-marker-7f3a"
_TEMPLATE = "airflow_template"
_READ = """
import json, sys
from airflow.models import Connection, Variable
from airflow.models.pool import Pool
from airflow.utils.session import create_session
with create_session() as session:
    print(json.dumps({
        "connections": {c.conn_id: [c.conn_type, c.host, c.login, c.password, c.port, c.extra]
                        for c in session.query(Connection)},
        "variables": {v.key: v.val for v in session.query(Variable)},
        "pools": {p.pool: p.slots for p in session.query(Pool)},
    }))
"""


def airflow_environment(endpoint: Endpoint, home: Path, key: str) -> dict[str, str]:
    """Return the environment of an Airflow on the database of `endpoint`."""
    login = f"{quote(endpoint.user)}:{quote(endpoint.password)}"
    address = f"{login}@{endpoint.host}:{endpoint.port}/{endpoint.database}"
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")},
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__FERNET_KEY": key,
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://{address}",
        "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
    }


def read_by_airflow(endpoint: Endpoint, key: str) -> dict[str, dict[str, Any]]:
    """Return what Airflow itself reads from its database, in a process of its own."""
    output = _in_airflow(_READ, endpoint, key)
    found: dict[str, dict[str, Any]] = json.loads(output.splitlines()[-1])
    return found


@contextmanager
def airflow_database(server: Endpoint) -> Iterator[Endpoint]:
    """Give a migrated metadata database with nothing in it but the default pool."""
    _require_template(server)
    name = f"airflow_{secrets.token_hex(6)}"
    try:
        yield create_database(server, name, f"TEMPLATE {_TEMPLATE}")
    finally:
        with session(server) as opened:
            opened.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def bare_database(server: Endpoint, name: str) -> Endpoint:
    """Return a database with no more than the three tables, as in the sandbox, and empty.

    It stays until the server goes, so that the next test has it at once.
    """
    database = replace(server, database=name)
    if name not in databases(server):
        create_database(server, name)
    with session(database) as opened:
        for (schema,) in opened.execute(
            "SELECT nspname FROM pg_namespace WHERE nspname = 'public' OR nspname LIKE 'neuroca%'"
        ).fetchall():
            opened.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(schema)))
        opened.execute("CREATE SCHEMA public")
        opened.execute("GRANT USAGE ON SCHEMA public TO PUBLIC")
        opened.execute(TABLES)
    return database


def drop_database(server: Endpoint, name: str) -> None:
    """Remove a database that others would take for data of the server's."""
    with session(server) as opened:
        opened.execute(
            sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
        )


def _require_template(server: Endpoint) -> None:
    with session(server) as opened:
        there = opened.execute(
            "SELECT 1 FROM pg_database WHERE datname = %s", [_TEMPLATE]
        ).fetchone()
    if there is None:
        template = create_database(server, _TEMPLATE)
        key = Fernet.generate_key().decode()
        _in_airflow("from airflow.utils.db import initdb; initdb()", template, key)


def put_connection(endpoint: Endpoint, key: str, conn_id: str, **columns: Any) -> None:
    """Add or replace a connection, its password and extra encrypted as Airflow does it."""
    fernet = Fernet(key)
    row = {"conn_id": conn_id, "conn_type": "postgres", **columns}
    for column, flag in {"password": "is_encrypted", "extra": "is_extra_encrypted"}.items():
        value = row.get(column)
        row[flag] = bool(value)
        row[column] = fernet.encrypt(value.encode()).decode() if value else value
    _put(endpoint, "connection", "conn_id", [row])


def put_variables(endpoint: Endpoint, key: str, values: Mapping[str, str]) -> None:
    """Add or replace variables."""
    fernet = Fernet(key)
    rows = [
        {"key": name, "val": fernet.encrypt(value.encode()).decode(), "is_encrypted": True}
        for name, value in values.items()
    ]
    _put(endpoint, "variable", "key", rows)


def put_pool(endpoint: Endpoint, name: str, slots: int) -> None:
    """Add or replace a pool."""
    row = {"pool": name, "slots": slots, "include_deferred": False}
    _put(endpoint, "slot_pool", "pool", [row])


def _put(endpoint: Endpoint, table: str, key: str, rows: Sequence[Mapping[str, Any]]) -> None:
    names = [sql.Identifier(name) for name in rows[0]]
    with session(replace(endpoint, extra={"sslmode": "disable"})) as opened:
        cursor = opened.cursor()
        cursor.executemany(
            sql.SQL("DELETE FROM {} WHERE {} = %s").format(
                sql.Identifier(table), sql.Identifier(key)
            ),
            [[row[key]] for row in rows],
        )
        cursor.executemany(
            sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
                sql.Identifier(table),
                sql.SQL(", ").join(names),
                sql.SQL(", ").join(sql.Placeholder() for _ in names),
            ),
            [list(row.values()) for row in rows],
        )


def _in_airflow(program: str, endpoint: Endpoint, key: str) -> str:
    with tempfile.TemporaryDirectory(prefix="neuroca-airflow-") as home:
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=airflow_environment(endpoint, Path(home), key),
            cwd=home,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
