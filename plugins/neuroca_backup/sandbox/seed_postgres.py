"""NCA-shaped content for PostgreSQL, computed by the server itself."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow

    from neuroca_backup.model.endpoint import Endpoint

_ROLES = ("neuroca_owner", "neuroca_readonly")


def counts(scale: float) -> dict[str, int]:
    """Return how many rows each `database.schema.table` holds after `seed`."""
    items, entries = _items(scale), _entries(scale)
    return {
        "neuroca.memory.alembic_version": 1,
        "neuroca.memory.memory_items": items,
        "neuroca.memory.sessions": max(1, items // 20),
        "neuroca.memory.users": max(1, items // 100),
        "neuroca_memory.public.alembic_version": 1,
        "neuroca_memory.public.ltm_entries": entries,
        "neuroca_memory.public.ltm_relationships": 2 * entries,
        "neuroca_memory.public.ltm_tags": 3 * entries,
    }


def seed(endpoint: Endpoint, *, scale: float) -> None:
    """Replace the databases `neuroca` and `neuroca_memory`."""
    from psycopg import sql  # noqa: PLC0415 - importing the sandbox must stay cheap

    with _connect(endpoint, endpoint.database) as connection:
        for database in ("neuroca", "neuroca_memory"):
            name = sql.Identifier(database)
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))
        for role in _ROLES:
            known = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role])
            if known.fetchone() is None:
                connection.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(role)))
        for database in ("neuroca", "neuroca_memory"):
            connection.execute(
                sql.SQL("CREATE DATABASE {} OWNER neuroca_owner STRATEGY file_copy").format(
                    sql.Identifier(database)
                )
            )
    _fill(endpoint, "neuroca", "neuroca.items", _items(scale))
    _fill(endpoint, "neuroca_memory", "neuroca.entries", _entries(scale))


def _fill(endpoint: Endpoint, database: str, setting: str, value: int) -> None:
    script = files("neuroca_backup.sandbox").joinpath(f"seed_{database}.sql").read_bytes()
    with _connect(endpoint, database) as connection:
        connection.execute("SELECT set_config(%s, %s, false)", [setting, str(value)])
        connection.execute("SET maintenance_work_mem = '256MB'")
        connection.execute("SET jit = off")
        connection.execute(script)


def _connect(endpoint: Endpoint, database: str) -> Connection[TupleRow]:
    import psycopg  # noqa: PLC0415 - importing the sandbox must stay cheap

    return psycopg.connect(
        host=endpoint.host,
        port=endpoint.port,
        user=endpoint.user,
        password=endpoint.password,
        dbname=database,
        autocommit=True,
        **endpoint.extra,
    )


def _items(scale: float) -> int:
    return max(1, round(200_000 * scale))


def _entries(scale: float) -> int:
    return max(1, round(10_000 * scale))
