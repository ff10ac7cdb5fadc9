"""A ready-wired `Runtime` for tests: real stores, real servers, a fake or a real catalog."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from neuroca_backup.catalog.memory import MemoryCatalog
from neuroca_backup.connections import FileConnections
from neuroca_backup.engines import RestoreTarget
from neuroca_backup.keyring.local import LocalKeyFile
from neuroca_backup.model.identity import BackupRef, Component, set_id
from neuroca_backup.runtime import Runtime
from neuroca_backup.settings import Settings
from neuroca_backup.stores.local import LocalStore

if TYPE_CHECKING:
    from neuroca_backup.keyring import Recipient
    from neuroca_backup.model.endpoint import Endpoint
    from neuroca_backup.model.tickets import FetchReport, RestorePlan

BOTH = ("staged", "streamed")
_counter = itertools.count()


def connection(endpoint: Endpoint, kind: str) -> str:
    """Return `endpoint` as the value of an AIRFLOW_CONN_ variable."""
    extra = {
        word: value
        for word, value in endpoint.extra.items()
        if kind != "aws" or word in {"endpoint_url", "region_name"}
    }
    return json.dumps(
        {
            "conn_type": kind,
            "host": endpoint.host if kind != "aws" else "",
            "port": endpoint.port if kind != "aws" else None,
            "login": endpoint.user,
            "password": endpoint.password,
            "schema": endpoint.database,
            "extra": extra,
        }
    )


@dataclass(frozen=True)
class Places:
    """Where a runtime keeps backups: `storage` and `encryption` of backup.yaml, connections."""

    storage: Mapping[str, Any]
    encryption: Mapping[str, Any]
    environ: Mapping[str, str] = field(default_factory=dict)


def local_places(root: Path) -> Places:
    """Return two directories and a key file below `root`; made when they are not there."""
    for name in ("primary", "secondary"):
        LocalStore(name, root / name).initialise()
    key = root / "local.key"
    if not key.exists():
        LocalKeyFile.generate(key)
    return Places(
        storage={
            name: {"type": "local", "path": str(root / name)} for name in ("primary", "secondary")
        },
        encryption={"key_management": "local", "local_key_file": str(key)},
    )


def region_places(regions: Mapping[str, Endpoint], *, recovery_key: Path | None = None) -> Places:
    """Return a bucket and a KMS key in each of two regions, below a path of their own."""
    us, eu = regions["us-west-2"], regions["eu-central-1"]
    path = f"/test-{os.getpid()}-{next(_counter)}"
    encryption = {
        "key_management": "kms",
        "kms_key_id": us.extra["kms_key_arn"],
        "secondary_kms_key_id": eu.extra["kms_key_arn"],
    }
    if recovery_key is not None:
        encryption["recovery_public_key"] = str(recovery_key)
    return Places(
        storage={
            name: {
                "type": "s3",
                "bucket": one.extra["bucket"],
                "region": one.extra["region_name"],
                "path": path,
                "connection": word,
            }
            for name, one, word in (("primary", us, "us"), ("secondary", eu, "eu"))
        },
        encryption=encryption,
        environ={
            "AIRFLOW_CONN_US": connection(us, "aws"),
            "AIRFLOW_CONN_EU": connection(eu, "aws"),
        },
    )


def wire(
    places: Places,
    *,
    postgres: Endpoint,
    spool: Path,
    mode: str = "staged",
    options: Mapping[str, Any] | None = None,
    extra_recipients: Sequence[Recipient] = (),
    catalog: Endpoint | None = None,
) -> Runtime:
    """Return a runtime whose only source is `postgres`; its catalog is in memory, or `catalog`."""
    environ = {**places.environ, "AIRFLOW_CONN_SOURCE": connection(postgres, "postgres")}
    settings: dict[str, Any] = {
        "schedule": {"database": "0 2 * * *"},
        "storage": places.storage,
        "retention": {"database": "30d"},
        "encryption": places.encryption,
        "pipeline": {"spool": str(spool), "mode": mode},
        "compression": {"level": 1, "threads": 1},
        "sources": {
            "postgres": {
                "component": "database",
                "engine": "postgresql",
                "connection": "source",
                "options": dict(options or {}),
            }
        },
    }
    if catalog is not None:
        environ["AIRFLOW_CONN_CATALOG"] = connection(catalog, "postgres")
        settings["catalog"] = {"connection": "catalog"}
    runtime = Runtime.build(
        Settings.model_validate(settings),
        FileConnections(environ=environ),
        extra_recipients=extra_recipients,
    )
    if catalog is None:
        runtime.__dict__["catalog"] = MemoryCatalog()
    return runtime


def fresh_ref(runtime: Runtime, *, age: timedelta = timedelta()) -> BackupRef:
    """Return a backup that does not exist yet, due `age` ago."""
    run = f"run-{os.getpid()}-{next(_counter)}"
    return runtime.ref(set_id(at=datetime.now(UTC) - age, run=run), "postgres")


def back_up(runtime: Runtime, *, age: timedelta = timedelta(), verify: bool = True) -> BackupRef:
    """Make a backup and, unless told otherwise, verify it."""
    ref = fresh_ref(runtime, age=age)
    runtime.backups.run(ref, mode=runtime.settings.pipeline.mode)
    if verify:
        runtime.verifier.verify(ref)
    return ref


@dataclass(frozen=True)
class Restored:
    """A restore that came to its end."""

    plan: RestorePlan
    fetched: FetchReport
    notes: tuple[str, ...]


def plan_of(runtime: Runtime, ref: BackupRef | None = None) -> RestorePlan:
    """Return the plan that restores `ref`, or the newest verified backup."""
    return runtime.restores.plan(
        component=Component.DATABASE,
        source="postgres",
        restore_id=f"restore-{next(_counter)}",
        backup_id=ref.backup_id if ref else None,
    )


def restore(
    runtime: Runtime, target: Endpoint, *, ref: BackupRef | None = None, replace: bool = False
) -> Restored:
    """Restore with every step that an operator would run, in their order."""
    plan, place = plan_of(runtime, ref), RestoreTarget(target, replace=replace)
    notes = [*runtime.restores.preflight(plan, place)]
    try:
        fetched = runtime.restores.fetch(plan)
        notes += runtime.restores.load(plan, fetched, place)
        runtime.restores.compare(plan, place)
        notes += runtime.restores.publish(plan, fetched, place)
    finally:
        runtime.restores.clear(plan.restore_id)
    return Restored(plan=plan, fetched=fetched, notes=tuple(notes))


def session(
    endpoint: Endpoint, database: str | None = None, **changes: Any
) -> psycopg.Connection[tuple[Any, ...]]:
    """Return an open autocommit session."""
    parameters: dict[str, Any] = {
        "host": endpoint.host,
        "port": endpoint.port,
        "user": endpoint.user,
        "password": endpoint.password,
        "dbname": database or endpoint.database,
        "autocommit": True,
        **endpoint.extra,
        **changes,
    }
    return psycopg.connect(**parameters)


def ask(endpoint: Endpoint, database: str, question: str, *values: Any) -> Any:
    """Return the first column of the only row."""
    with session(endpoint, database) as opened:
        rows = opened.execute(question, values).fetchall()  # type: ignore[arg-type]
    assert len(rows) == 1, rows
    return rows[0][0]


def create_database(endpoint: Endpoint, name: str, words: str = "") -> Endpoint:
    """Create a database and return its endpoint."""
    with session(endpoint) as opened:
        opened.execute(
            sql.SQL("CREATE DATABASE {} " + words).format(sql.Identifier(name))  # type: ignore[arg-type]
        )
    return replace(endpoint, database=name)


def drop_databases(endpoint: Endpoint, *, like: str) -> None:
    """Drop every database whose name holds `like`, and what a restore left of them."""
    with session(endpoint) as opened:
        names = opened.execute(
            "SELECT datname FROM pg_database WHERE position(%s IN datname) > 0"
            " OR datname LIKE 'restoring\\_%%'",
            [like],
        ).fetchall()
        for (name,) in names:
            opened.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def databases(endpoint: Endpoint) -> set[str]:
    """Return the names of all databases."""
    with session(endpoint) as opened:
        return {name for (name,) in opened.execute("SELECT datname FROM pg_database").fetchall()}


@contextmanager
def scratch_database(
    endpoint: Endpoint, name: str, *, rows: int = 200, also_on: Sequence[Endpoint] = ()
) -> Iterator[Endpoint]:
    """Give a database with a table `memory.items` of `rows` rows; dropped everywhere at the end."""
    created = create_database(endpoint, name)
    try:
        with session(created) as opened:
            opened.execute("CREATE SCHEMA memory")
            opened.execute(
                "CREATE TABLE memory.items (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,"
                " content text NOT NULL, made_at timestamptz DEFAULT now())"
            )
        add_rows(created, rows)
        yield created
    finally:
        for one in (endpoint, *also_on):
            drop_databases(one, like=name)


def add_rows(endpoint: Endpoint, count: int) -> None:
    """Add `count` rows to `memory.items`."""
    with session(endpoint) as opened:
        opened.execute(
            "INSERT INTO memory.items (content)"
            " SELECT 'memory ' || n FROM generate_series(1, %s) AS n",
            [count],
        )


def count_rows(endpoint: Endpoint, database: str) -> int:
    """Return how many rows `memory.items` has in `database`."""
    found: int = ask(endpoint, database, "SELECT count(*) FROM memory.items")
    return found


def keys_in(runtime: Runtime, store: str, ref: BackupRef) -> list[str]:
    """Return the keys of every object that `store` holds below the backup's prefix."""
    return [found.key for found in runtime.stores[store].list(ref.prefix)]


def spool_names(runtime: Runtime) -> list[str]:
    """Return what lies in the spool."""
    root = runtime.settings.pipeline.spool
    return sorted(path.name for path in root.iterdir()) if root.is_dir() else []
