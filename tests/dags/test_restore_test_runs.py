"""The DAG `restore_test`: its shape, its form, and whole runs over files and a Redis server."""

from __future__ import annotations

import json
import secrets
import socket
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from neuroca_backup.connections import FileConnections
from neuroca_backup.errors import ConfigurationError, TargetRefusedError
from neuroca_backup.model.identity import Component, set_id
from neuroca_backup.model.restore_test import PREFIX, REPORT, RestoreTest
from neuroca_backup.operators.restore_test_request import FIELDS, parse
from neuroca_backup.runtime import Runtime
from neuroca_backup.settings import Settings, load
from support.redis_keys import client_of, flush
from support.wiring import connection, local_places

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from airflow.sdk import DAG

    from dags.stand import Airflow
    from neuroca_backup.model.endpoint import Endpoint

STEPS = [
    *("sandbox", "preflight", "fetch", "load", "compare", "publish", "examine"),
    *("sample", "sanitise", "keep", "tear_down"),
]
PERSON = "zdenka@personal.example.net"


def test_a_source_is_one_line_from_the_sandbox_to_its_end_and_the_record_waits_for_that(
    configure: Callable[..., Path], parsed: Callable[[], dict[str, DAG]]
) -> None:
    configure()

    dag: Any = parsed()["restore_test"]

    steps = [f"source.{step}" for step in STEPS]
    edges = {(task.task_id, below) for task in dag.tasks for below in task.downstream_task_ids}
    fed = {("plan", one.task_id) for one in dag.tasks}
    assert edges - fed == set(pairwise(steps)) | {
        ("source.keep", "record"),
        ("source.tear_down", "record"),
    }
    assert dag.get_task("source.sandbox").is_setup
    tear_down = dag.get_task("source.tear_down")
    assert tear_down.is_teardown
    assert tear_down.on_failure_fail_dagrun
    assert dag.get_task("record").trigger_rule == "all_done"
    assert dag.get_task("source.sanitise").retries == 0
    assert (dag.timetable.expression, str(dag.timetable.timezone)) == ("0 8 * * 1", "UTC")
    assert (dag.catchup, dag.max_active_runs) == (False, 1)
    assert tuple(dag.params.dump()) == FIELDS


def test_a_restore_test_less_often_than_every_quarter_is_refused_with_the_reason(
    configure: Callable[..., Path],
) -> None:
    path = configure()
    path.write_text(path.read_text() + '  restore_test: {schedule: "0 8 1 1,6 *"}\n')

    with pytest.raises(ConfigurationError, match="the runbook asks for one every quarter") as said:
        load(path)
    assert "backup.restore_test.schedule" in str(said.value)


@pytest.fixture
def settings(configure: Callable[..., Path]) -> Callable[[str], Settings]:
    def make(more: str = "") -> Settings:
        path = configure()
        path.write_text(path.read_text() + more)
        return load(path)

    return make


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"source": "postgres"}, "no field 'source'"),
        ({"sources": ["redis"]}, "'redis' is not a choice"),
        ({"components": ["databases"]}, "'databases' is not a choice"),
        ({"sandbox": "cloud"}, "'cloud' is not a choice"),
        ({"keep": 73}, "73 hours is not from 0 to 72"),
        ({"keep": "long"}, "'long' is not a choice"),
        ({"sanitise": "no"}, "'no' is not a choice"),
        ({"sources": ["postgres"], "backup": "x"}, "sources and backup are given together"),
        ({"sandbox": "connection"}, "backup.yaml names none"),
    ],
)
def test_a_form_that_means_nothing_is_refused_and_says_the_field(
    settings: Callable[..., Settings], form: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words):
        parse(form, settings())


def test_the_empty_form_of_the_schedule_means_everything_sanitised_and_nothing_kept(
    settings: Callable[..., Settings],
) -> None:
    asked = parse({}, settings())

    assert (asked.components, asked.sources, asked.backup) == ((), (), "")
    assert (asked.sandbox, asked.sanitise, asked.keep) == ("process", True, timedelta())


class Stand:
    """A Redis server and a configuration with a backup each, and an Airflow that tests them."""

    def __init__(
        self, root: Path, server: Endpoint, make: Callable[[Mapping[str, str]], Airflow]
    ) -> None:
        self.root, self.server = root, server
        (root / "etc").mkdir()
        (root / "etc" / "app.env").write_text("MODE=test\n")
        document = {
            "schedule": {"database": "0 2 * * *"},
            "storage": local_places(root).storage,
            "retention": {},
            "encryption": local_places(root).encryption,
            "pipeline": {"spool": str(root / "spool")},
            "sources": {
                "redis": {"component": "database", "engine": "redis_rdb", "connection": "nca"},
                "configuration": {
                    "component": "configuration",
                    "engine": "filetree",
                    "options": {"parameters": [str(root / "etc")]},
                },
            },
            "sanitise": {
                "redis": [{"keys": "person:*", "action": "fake", "kind": "email"}],
            },
        }
        (root / "backup.yaml").write_text(yaml.safe_dump({"backup": document}))
        environ = {"AIRFLOW_CONN_NCA": connection(server, "redis")}
        self.runtime = Runtime.build(load(root / "backup.yaml"), FileConnections(environ=environ))
        self.airflow = make({"NEUROCA_BACKUP_CONFIG": str(root / "backup.yaml"), **environ})

    def back_up(self) -> None:
        at = datetime.now(UTC)
        for source in ("redis", "configuration"):
            ref = self.runtime.ref(set_id(at=at, run=secrets.token_hex(4)), source)
            self.runtime.backups.run(ref, mode="streamed")
            self.runtime.verifier.verify(ref)

    def reports(self) -> list[RestoreTest]:
        found = sorted((self.root / "secondary" / PREFIX).glob(f"*/{REPORT}"))
        return [
            RestoreTest.decode(one.read_bytes(), name=f"{PREFIX}/{one.parent.name}/{REPORT}")
            for one in found
        ]

    def spooled(self) -> list[str]:
        return sorted(path.name for path in (self.root / "spool").iterdir())


@pytest.fixture(scope="module")
def stand(
    airflow: Callable[[Mapping[str, str]], Airflow],
    redis_server: Endpoint,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stand]:
    flush(redis_server)
    with client_of(redis_server) as client:
        client.mset({f"person:{n}": f"{n}.{PERSON}" for n in range(50)})
    made = Stand(tmp_path_factory.mktemp("tested"), redis_server, airflow)
    made.back_up()
    yield made
    flush(redis_server)


def test_one_source_that_fails_stops_no_other_and_everything_is_taken_down_and_recorded(
    stand: Stand,
) -> None:
    path = stand.root / "backup.yaml"
    path.write_text(path.read_text().replace("person:*", "renamed:*"))

    run = stand.airflow.run("restore_test")

    index = {run.labels[f"source.load[{n}]"]: n for n in (0, 1)}
    good, bad = index["configuration"], index["redis"]
    assert {run.tasks[f"source.{step}[{good}]"] for step in STEPS} == {"success"}
    assert run.tasks[f"source.sanitise[{bad}]"] == "failed"
    assert run.tries[f"source.sanitise[{bad}]"] == 1
    assert run.tasks[f"source.keep[{bad}]"] == "upstream_failed"
    assert run.tasks[f"source.tear_down[{bad}]"] == "success"
    assert (run.tasks["record"], run.state) == ("failed", "failed")
    assert "renamed:* is not in the copy" in run.output

    (test,) = stand.reports()
    assert (test.passed, test.success_rate) == (False, 0.5)
    by_source = {one.source: one for one in test.sources}
    assert by_source["configuration"].passed
    assert by_source["configuration"].sanitised == "no rules"
    assert {*STEPS} - {"keep"} <= {*by_source["configuration"].seconds}
    assert by_source["redis"].outcome == "failed in sanitise"
    assert by_source["redis"].component is Component.DATABASE
    assert all(one.removed and one.records and one.stores for one in test.sources)

    assert stand.spooled() == []
    assert PERSON not in json.dumps(run.xcoms) + run.output
    notes = run.xcoms[f"source.sandbox[{bad}]/return_value"]["notes"]
    port = int(notes[0].rpartition(":")[2])
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_server_that_is_backed_up_is_no_sandbox(stand: Stand) -> None:
    settings = stand.runtime.settings.model_copy(
        update={
            "restore_test": stand.runtime.settings.restore_test.model_copy(
                update={"connections": {"redis": "nca"}}
            )
        }
    )
    environ = {"AIRFLOW_CONN_NCA": connection(stand.server, "redis")}
    runtime = Runtime.build(settings, FileConnections(environ=environ))
    plan = runtime.restores.plan(component=Component.DATABASE, source="redis", restore_id="r")

    with pytest.raises(TargetRefusedError, match="is the server of the source redis"):
        runtime.testing.target(plan, "connection")
