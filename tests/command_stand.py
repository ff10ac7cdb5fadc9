"""An installation for the command: a backup.yaml, connections in the environment, a database."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psycopg
import yaml
from psycopg import sql

from neuroca_backup.model.endpoint import Endpoint

PLUGINS = Path(__file__).resolve().parents[1] / "plugins"
PASSPHRASE = "correct horse battery staple"
# Nothing listens on the discard port of the loopback interface.
CLOSED_PORT = 9


@dataclass(frozen=True)
class Stand:
    """Where the command runs; `run` overrides single connections."""

    folder: Path
    database: str
    source: Endpoint
    target: Endpoint
    connections: Mapping[str, str] = field(repr=False)
    argv: Sequence[str] = (sys.executable, "-m", "neuroca_backup")

    @property
    def spool(self) -> Path:
        return self.folder / "spool"

    def environment(self, overrides: Mapping[str, str] | None = None) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
        variables = {
            f"AIRFLOW_CONN_{name.upper()}": value
            for name, value in {**self.connections, **(overrides or {})}.items()
        }
        config = {"NEUROCA_BACKUP_CONFIG": str(self.folder / "backup.yaml")}
        path = {"PYTHONPATH": str(PLUGINS)} if self.argv[0] == sys.executable else {}
        return {**kept, **path, **config, **variables}

    def run(
        self, *words: str, overrides: Mapping[str, str] | None = None, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.argv, *words],
            env=self.environment(overrides),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def done(self, *words: str, overrides: Mapping[str, str] | None = None) -> str:
        ended = self.run(*words, overrides=overrides)
        assert ended.returncode == 0, f"{words} exited {ended.returncode}: {ended.stderr}"
        return ended.stdout

    def write_rows(self, count: int) -> None:
        with _connect(self.source, self.database) as connection:
            connection.execute(
                "INSERT INTO memory_items (content)"
                " SELECT md5(random()::text) FROM generate_series(1, %s)",
                [count],
            )

    def rows(self, endpoint: Endpoint) -> int:
        with _connect(endpoint, self.database) as connection:
            row = connection.execute("SELECT count(*) FROM memory_items").fetchone()
            assert row is not None
            return int(row[0])

    def execute(self, endpoint: Endpoint, statement: str) -> None:
        with _connect(endpoint, self.database) as connection:
            connection.execute(statement)

    def forget_target(self) -> None:
        """Remove what an earlier restore left on the target's server."""
        drop(self.target, self.database)


def connection(endpoint: Endpoint, kind: str) -> str:
    """Return `endpoint` as the text of an Airflow connection."""
    extra = {key: endpoint.extra[key] for key in endpoint.extra if key not in _NOT_IN_CONNECTIONS}
    body = {
        "conn_type": kind,
        "host": endpoint.host if kind != "aws" else None,
        "port": endpoint.port if kind != "aws" else None,
        "login": endpoint.user,
        "password": endpoint.password,
        "schema": endpoint.database,
        "extra": extra,
    }
    return json.dumps({key: value for key, value in body.items() if value is not None})


_NOT_IN_CONNECTIONS = {"bucket", "kms_key_arn"}


@contextmanager
def stand(
    folder: Path,
    *,
    postgres: Endpoint,
    postgres_twin: Endpoint,
    primary: Endpoint,
    secondary: Endpoint,
    recovery_public_key: Path | None = None,
) -> Iterator[Stand]:
    """Give a stand with a database of its own on `postgres`, and a catalog on the twin."""
    database, catalog = f"command_{secrets.token_hex(4)}", f"catalog_{secrets.token_hex(4)}"
    path = f"/{secrets.token_hex(4)}"
    encryption: dict[str, Any] = {
        "key_management": "kms",
        "kms_key_id": primary.extra["kms_key_arn"],
        "kms_connection": "us_kms",
        "secondary_kms_key_id": secondary.extra["kms_key_arn"],
        "secondary_kms_connection": "eu_kms",
    }
    if recovery_public_key is not None:
        encryption["recovery_public_key"] = str(recovery_public_key)
    settings = {
        "schedule": {"database": "0 2 * * *"},
        "storage": {
            name: {
                "type": "s3",
                "bucket": endpoint.extra["bucket"],
                "region": endpoint.extra["region_name"],
                "path": path,
                "connection": connection_id,
            }
            for name, endpoint, connection_id in (
                ("primary", primary, "us"),
                ("secondary", secondary, "eu"),
            )
        },
        "retention": {"database": "30d"},
        "encryption": encryption,
        "sources": {
            "postgres": {
                "component": "database",
                "engine": "postgresql",
                "connection": "source",
                "options": {"databases": [database]},
            }
        },
        "pipeline": {"spool": str(folder / "spool")},
        "catalog": {"connection": "catalog"},
    }
    (folder / "backup.yaml").write_text(yaml.safe_dump({"backup": settings}))
    run = Stand(
        folder=folder,
        database=database,
        source=postgres,
        target=postgres_twin,
        connections={
            "source": connection(postgres, "postgres"),
            "twin": connection(postgres_twin, "postgres"),
            "catalog": connection(replace(postgres_twin, database=catalog), "postgres"),
            "us": connection(primary, "aws"),
            "eu": connection(secondary, "aws"),
            "us_kms": connection(primary, "aws"),
            "eu_kms": connection(secondary, "aws"),
        },
    )
    create(postgres, database)
    create(postgres_twin, catalog)
    try:
        run.execute(
            postgres,
            "CREATE TABLE memory_items (id bigserial PRIMARY KEY, content text NOT NULL)",
        )
        yield run
    finally:
        drop(postgres, database)
        drop(postgres_twin, catalog)
        drop(postgres_twin, database)


def create(endpoint: Endpoint, database: str) -> None:
    """Create an empty database."""
    with _connect(endpoint, endpoint.database) as connected:
        connected.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))


def drop(endpoint: Endpoint, database: str) -> None:
    """Remove a database, and what restores kept of it."""
    with _connect(endpoint, endpoint.database) as connected:
        names = connected.execute(
            "SELECT datname FROM pg_database WHERE datname = %s OR datname LIKE %s",
            [database, f"{database}\\_before\\_%"],
        ).fetchall()
        for (name,) in names:
            connected.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _connect(endpoint: Endpoint, database: str) -> psycopg.Connection[Any]:
    return psycopg.connect(
        host=endpoint.host,
        port=endpoint.port,
        user=endpoint.user,
        password=endpoint.password,
        dbname=database,
        autocommit=True,
    )
