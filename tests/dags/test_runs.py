"""Whole runs of the DAGs against a real PostgreSQL server and S3 and KMS in two regions."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import yaml

from neuroca_backup import sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from dags.stand import Airflow, Outcome
    from neuroca_backup.model.endpoint import Endpoint

STAGES = ["dump", "compress", "encrypt", "upload", "replicate", "verify"]
ROWS = 200


@dataclass
class Stand:
    """A source, two regions, and an Airflow that is set up for them."""

    folder: Path
    servers: Mapping[str, Endpoint]
    airflow: Airflow

    @property
    def source(self) -> Endpoint:
        return self.servers["postgres"]

    @property
    def spool(self) -> Path:
        return self.folder / "spool"

    def spooled(self) -> list[str]:
        """What the spool holds, but for empty folders."""
        return [
            str(path.relative_to(self.spool)) for path in self.spool.rglob("*") if path.is_file()
        ]

    def spooled_but_sandboxes(self) -> list[str]:
        return [name for name in self.spooled() if not name.startswith("sandbox-")]

    def secrets(self) -> list[str]:
        return [server.password for server in self.servers.values()]

    def sandboxes(self) -> list[Path]:
        return sorted(self.spool.glob("sandbox-*"))

    def settings(self, *, sources: Mapping[str, Any] | None = None, **pipeline: str) -> None:
        west, east = self.servers["s3_us_west_2"], self.servers["s3_eu_central_1"]
        store = {"type": "s3", "path": "/backups"}
        backup = {
            "schedule": {"database": "0 2 * * *"},
            "storage": {
                "primary": {
                    **store,
                    "bucket": west.extra["bucket"],
                    "region": "us-west-2",
                    "connection": "aws_west",
                },
                "secondary": {
                    **store,
                    "bucket": east.extra["bucket"],
                    "region": "eu-central-1",
                    "connection": "aws_east",
                },
            },
            "retention": {"database": "30d"},
            "encryption": {
                "key_management": "kms",
                "kms_key_id": west.extra["kms_key_arn"],
                "secondary_kms_key_id": east.extra["kms_key_arn"],
            },
            "sources": sources or {"postgres": source_of("nca_postgres")},
            "pipeline": {"spool": str(self.spool), **pipeline},
            # Here nobody can answer; test_approval.py has the whole of Airflow.
            "restore": {"approvals": 0},
        }
        (self.folder / "backup.yaml").write_text(yaml.safe_dump({"backup": backup}))


def source_of(connection_id: str, **options: Any) -> dict[str, Any]:
    return {
        "component": "database",
        "engine": "postgresql",
        "connection": connection_id,
        "options": options,
    }


# Two sources on one server: each dumps a database of its own.
TWO = {
    "postgres": source_of("nca_postgres", databases=["neuroca"]),
    "memory": source_of("nca_memory", databases=["neuroca_memory"]),
}


def connection(endpoint: Endpoint, kind: str, **changes: Any) -> str:
    extra = {k: v for k, v in endpoint.extra.items() if k not in {"bucket", "kms_key_arn"}}
    fields = {
        "conn_type": kind,
        "login": endpoint.user,
        "password": endpoint.password,
        "extra": extra,
    }
    if kind != "aws":
        fields |= {"host": endpoint.host, "port": endpoint.port, "schema": endpoint.database}
    return json.dumps({**fields, **changes})


def query(endpoint: Endpoint, statement: str, database: str = "neuroca") -> list[tuple[Any, ...]]:
    with psycopg.connect(
        host=endpoint.host,
        port=endpoint.port,
        user=endpoint.user,
        password=endpoint.password,
        dbname=database,
        autocommit=True,
    ) as session:
        cursor = session.execute(statement)  # type: ignore[call-overload]
        return cursor.fetchall() if cursor.description else []


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Endpoint]]:
    root = tmp_path_factory.mktemp("servers")
    started = sandbox.start(root, ["postgres", "s3_us_west_2", "s3_eu_central_1"])
    try:
        for database in ("neuroca", "neuroca_memory"):
            query(started["postgres"], f"CREATE DATABASE {database}", database="postgres")
            query(
                started["postgres"],
                "CREATE TABLE memory_items (id int PRIMARY KEY, content jsonb NOT NULL)",
                database,
            )
            query(
                started["postgres"],
                "INSERT INTO memory_items "  # noqa: S608 - a constant
                f"SELECT n, jsonb_build_object('n', n) FROM generate_series(1, {ROWS}) AS n",
                database,
            )
        yield started
    finally:
        sandbox.stop(root)


@pytest.fixture(scope="module")
def stand(
    servers: Mapping[str, Endpoint],
    airflow: Callable[[Mapping[str, str]], Airflow],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stand]:
    folder = tmp_path_factory.mktemp("stand")
    environment = {
        "NEUROCA_BACKUP_CONFIG": str(folder / "backup.yaml"),
        "AIRFLOW_CONN_NCA_POSTGRES": connection(servers["postgres"], "postgres"),
        "AIRFLOW_CONN_NCA_MEMORY": connection(servers["postgres"], "postgres"),
        "AIRFLOW_CONN_AWS_WEST": connection(servers["s3_us_west_2"], "aws"),
        "AIRFLOW_CONN_AWS_EAST": connection(servers["s3_eu_central_1"], "aws"),
        "AIRFLOW_CONN_SAME_SERVER": connection(servers["postgres"], "postgres", host="localhost"),
    }
    made = Stand(folder=folder, servers=servers, airflow=airflow(environment))
    made.settings()
    try:
        yield made
    finally:
        for left in made.spool.glob("sandbox-*"):
            sandbox.stop(left)


@pytest.fixture(scope="module")
def backup(stand: Stand) -> Outcome:
    """A finished run of backup_database."""
    run = stand.airflow.run("backup_database")
    assert run.state == "success", run.output[-8000:]
    return run


def test_200_rows_go_through_six_tasks_and_come_back_as_200_rows_in_a_sandbox(
    stand: Stand, backup: Outcome
) -> None:
    assert set(backup.tasks) == {*(f"postgres.{stage}" for stage in STAGES), "clear_spool", "set"}
    assert set(backup.tasks.values()) == {"success"}
    assert stand.spooled() == []
    (event,) = backup.events
    assert event["uri"] == "x-neuroca-backup://database/postgres"
    assert event["extra"]["levels"] == {"primary": "INTACT", "secondary": "PARSED"}
    assert event["extra"]["stored_bytes"] > 0

    restore = stand.airflow.run("restore", {"keep_sandbox": True})

    assert restore.state == "success", restore.output[-8000:]
    assert set(restore.tasks.values()) == {"success"}
    (order,) = restore.xcoms["plan/return_value"]
    assert order["plan"]["backup_id"] == event["extra"]["backup_id"]
    (root,) = stand.sandboxes()
    twin = sandbox.endpoints(root)["postgres_twin"]
    try:
        assert not twin.same_server(stand.source)
        rows = query(twin, "SELECT id, content->>'n' FROM memory_items ORDER BY id")
        assert rows == [(n, str(n)) for n in range(1, ROWS + 1)]
    finally:
        sandbox.stop(root)

    for secret in [*stand.secrets(), twin.password]:
        assert secret not in json.dumps([backup.xcoms, restore.xcoms, backup.events])
        assert secret not in backup.output + restore.output
        assert secret.encode() not in stand.airflow.everything_written()


def test_a_restore_leaves_neither_sandbox_nor_files_unless_asked_to(
    stand: Stand, backup: Outcome
) -> None:
    restore = stand.airflow.run("restore", {"prefer_store": "secondary"})

    assert restore.state == "success", restore.output[-8000:]
    fetched = restore.xcoms["source.fetch[0]/return_value"]["fetched"]
    assert list(fetched["bytes_by_store"]) == ["secondary"]
    assert stand.spooled() == []
    assert stand.sandboxes() == []


def test_an_in_place_restore_that_is_confirmed_brings_lost_rows_back(
    stand: Stand, backup: Outcome
) -> None:
    query(stand.source, "DELETE FROM memory_items WHERE id > 50")

    restore = stand.airflow.run("restore", {"target": "in_place", "confirm": "postgres"})

    assert restore.state == "success", restore.output[-8000:]
    assert query(stand.source, "SELECT count(*) FROM memory_items") == [(ROWS,)]
    (note,) = restore.xcoms["source.save[0]/return_value"]["notes"]
    assert "is kept beside; it needs no backup first" in note
    kept = query(
        stand.source, "SELECT datname FROM pg_database WHERE datname LIKE '%_before_%'", "postgres"
    )
    assert len(kept) == 2, "what was there is kept, of both databases"
    for (name,) in kept:
        query(stand.source, f'DROP DATABASE "{name}"', "postgres")


@pytest.mark.parametrize(
    ("form", "task", "words"),
    [
        ({"target": "in_place"}, "plan", "set confirm to 'postgres'"),
        (
            {"target": "connection", "target_connection": "same_server"},
            "plan",
            "is the server of the source postgres",
        ),
    ],
    ids=["unconfirmed", "production"],
)
def test_a_forbidden_restore_is_refused_before_anything_is_touched(
    stand: Stand, backup: Outcome, form: dict[str, Any], task: str, words: str
) -> None:
    before = query(stand.source, "SELECT datname FROM pg_database ORDER BY 1", "postgres")

    restore = stand.airflow.run("restore", form)

    assert restore.state == "failed"
    assert restore.tasks[task] == "failed"
    assert restore.tries[task] == 1, "a refusal is not retried"
    assert words in restore.output
    assert "success" not in {restore.tasks.get(f"source.load{i}") for i in ("", "[0]")}
    assert "success" not in {restore.tasks.get(f"source.record{i}") for i in ("", "[0]")}
    assert stand.spooled() == []
    assert query(stand.source, "SELECT datname FROM pg_database ORDER BY 1", "postgres") == before


def test_a_wrong_password_fails_the_run_at_once_and_leaves_no_spool(stand: Stand) -> None:
    wrong = connection(stand.source, "postgres", password="not-the-password")

    backup = stand.airflow.run("backup_database", AIRFLOW_CONN_NCA_POSTGRES=wrong)

    assert backup.state == "failed"
    assert backup.tasks["postgres.dump"] == "failed"
    assert backup.tries["postgres.dump"] == 1
    assert backup.tasks["postgres.verify"] == "upstream_failed"
    assert backup.tasks["clear_spool"] == "success"
    assert backup.tasks["set"] == "failed", "a set without a backup is recorded, and red"
    assert "no verified backup of postgres" in backup.output
    assert stand.spooled() == []
    assert backup.events == []
    assert "not-the-password" not in backup.output


def test_a_missing_connection_is_named_together_with_how_to_create_it(stand: Stand) -> None:
    backup = stand.airflow.run("backup_database", AIRFLOW_CONN_AWS_EAST="")

    assert backup.state == "failed"
    assert backup.tries["postgres.dump"] == 1
    assert "There is no Airflow connection 'aws_east'" in backup.output
    assert "airflow connections add aws_east" in backup.output


def test_a_streamed_backup_never_makes_a_spool(stand: Stand) -> None:
    stand.settings(mode="streamed", spool=str(stand.folder / "unused"))
    try:
        backup = stand.airflow.run("backup_database")
    finally:
        stand.settings()

    assert backup.state == "success", backup.output[-8000:]
    assert set(backup.tasks) == {
        *("postgres.stream", "postgres.replicate", "postgres.verify", "set")
    }
    assert not (stand.folder / "unused").exists()
    assert backup.events[0]["extra"]["levels"]["secondary"] == "PARSED"


@pytest.fixture
def two_sources(stand: Stand) -> Iterator[Stand]:
    """The stand with two sources; what a test leaves running is stopped."""
    stand.settings(sources=TWO)
    yield stand
    stand.settings()
    for root in stand.sandboxes():
        sandbox.stop(root)


def test_a_whole_set_comes_back_each_source_in_a_sandbox_of_its_own(two_sources: Stand) -> None:
    stand = two_sources
    backup = stand.airflow.run("backup_database")
    assert backup.state == "success", backup.output[-8000:]
    recorded = backup.xcoms["set/return_value"]

    unconfirmed = stand.airflow.run(
        "restore", {"set_id": "latest", "target": "in_place", "confirm": "postgres"}
    )
    restore = stand.airflow.run("restore", {"set_id": "latest", "keep_sandbox": True})

    assert unconfirmed.state == "failed"
    assert f"set confirm to '{recorded['set_id']}'" in unconfirmed.output
    assert restore.state == "success", restore.output[-8000:]
    orders = restore.xcoms["plan/return_value"]
    assert [order["plan"]["backup_id"] for order in orders] == [
        f"{recorded['set_id']}-memory",
        f"{recorded['set_id']}-postgres",
    ]
    assert 0 <= recorded["skew_seconds"] < 60
    # Each server holds its source and nothing of the other.
    found = {}
    for root in stand.sandboxes():
        twin = sandbox.endpoints(root)["postgres_twin"]
        names = query(
            twin, "SELECT datname FROM pg_database WHERE datname LIKE 'neuroca%'", "postgres"
        )
        ((database,),) = names
        found[database] = query(twin, "SELECT count(*) FROM memory_items", database)
    assert found == {"neuroca": [(ROWS,)], "neuroca_memory": [(ROWS,)]}
    assert stand.spooled_but_sandboxes() == []


def test_a_source_of_a_set_that_cannot_be_restored_is_red_and_does_not_stop_the_others(
    two_sources: Stand,
) -> None:
    stand = two_sources
    wrong = connection(stand.source, "postgres", password="not-the-password")
    backup = stand.airflow.run("backup_database", AIRFLOW_CONN_NCA_MEMORY=wrong)
    assert backup.state == "failed"
    assert backup.tasks["postgres.verify"] == "success"
    assert backup.tasks["set"] == "failed"
    (of,) = set(re.findall(r"The set (\S+) of database is incomplete", backup.output))

    restore = stand.airflow.run("restore", {"set_id": of})

    assert restore.state == "failed"
    assert restore.tasks["source.record[0]"] == "success"
    assert restore.tasks["source.publish[0]"] == "success"
    assert restore.tasks["checks.space[1]"] == "failed"
    assert restore.tasks["source.fetch[1]"] == "failed"
    assert restore.tasks["source.record[1]"] == "failed"
    assert restore.tasks["source.load[1]"] == "upstream_failed"
    assert restore.tasks["source.clean_up[1]"] == "success"
    assert f"The set {of} has no backup of memory" in restore.output
    assert stand.sandboxes() == []


def test_a_field_that_the_backup_form_does_not_have_is_refused_before_the_dump(
    stand: Stand,
) -> None:
    backup = stand.airflow.run("backup_database", {"typ": "full"})

    assert backup.state == "failed"
    assert backup.tries["postgres.dump"] == 1
    assert "The backup form has no field 'typ'" in backup.output
