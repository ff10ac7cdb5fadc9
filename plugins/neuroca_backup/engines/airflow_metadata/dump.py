"""Dumping the three tables in one snapshot, or only taking their fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import psycopg

from neuroca_backup.engines import Sink
from neuroca_backup.engines.airflow_metadata import fernet, rows, tables
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.manifest import Dump
from neuroca_backup.streams import write_all


def server_version(endpoint: Endpoint) -> str:
    """Return PostgreSQL's version; raise where there is no Airflow."""
    with tables.session(endpoint) as connection:
        return tables.find(connection, endpoint).version


def dump(endpoint: Endpoint, sink: Sink, key_file: Path | None) -> Dump:
    """Write every row, decrypted; see the protocol."""
    moment = datetime.now(UTC)
    database, facts = _read(endpoint, key_file, sink.member)
    return Dump(
        server_version=database.version,
        tools={"psycopg": psycopg.__version__},
        consistency={"time": moment.isoformat()},
        facts={
            "tables": facts,
            "fingerprint": _fingerprint(facts),
            "airflow_revision": database.revision,
            "fernet_key_file": str(key_file) if key_file else "",
        },
    )


def fingerprint(endpoint: Endpoint, key_file: Path | None) -> str:
    """Return what `dump` would put into `facts["fingerprint"]` now."""
    _, facts = _read(endpoint, key_file, lambda _: nullcontext(_Nothing()))
    return _fingerprint(facts)


class _Nothing(BytesIO):
    """Takes everything and keeps nothing."""

    def write(self, data: Any) -> int:
        return len(memoryview(data))


def _read(
    endpoint: Endpoint,
    key_file: Path | None,
    member: Callable[[str], AbstractContextManager[BinaryIO]],
) -> tuple[tables.Database, dict[str, dict[str, Any]]]:
    keys = cache(lambda: fernet.find(endpoint, key_file))
    facts: dict[str, dict[str, Any]] = {}
    with tables.session(endpoint) as connection:
        database = tables.find(connection, endpoint)
        for table in tables.TABLES:
            columns = tables.visible(database, table)
            running, count = hashlib.sha256(), 0
            with member(table.member) as out:
                for row in rows.of_table(connection, database.schema, table, columns, keys):
                    line = rows.encode(row)
                    running.update(line)
                    write_all(out, line)
                    count += 1
            facts[table.member] = {
                "rows": count,
                "sha256": running.hexdigest(),
                "columns": list(columns),
            }
    return database, facts


def _fingerprint(facts: dict[str, dict[str, Any]]) -> str:
    running = hashlib.sha256()
    for table in tables.TABLES:
        running.update(bytes.fromhex(facts[table.member]["sha256"]))
    return running.hexdigest()
