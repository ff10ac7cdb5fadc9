"""The DAG `monitor_objectives`: what it is made of, and whole runs of it over two directories."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from dags.stand import ONE_SOURCE, YAML
from neuroca_backup.errors import ConfigurationError
from neuroca_backup.keyring.local import LocalKeyFile
from neuroca_backup.notifications.monitor import MonitorNotice
from neuroca_backup.operators.monitor import KINDS, VERDICT
from neuroca_backup.operators.monitor_request import MonitorRequest
from neuroca_backup.services.objectives.findings import Kind
from neuroca_backup.settings import NotificationSettings
from neuroca_backup.stores.local import LocalStore
from support.histories import BOTH, History

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from airflow.sdk import DAG

    from dags.stand import Airflow


@pytest.fixture
def installation(tmp_path: Path) -> Path:
    """A backup of January 2026, which is older than any objective, in two directories."""
    made = History()
    made.put(0)
    for name in BOTH:
        store = LocalStore(name, tmp_path / name)
        store.initialise()
        for key, (data, _) in made.stores[name].objects.items():
            store.put(key, data)
    LocalKeyFile.generate(tmp_path / "keys.json")
    path = tmp_path / "backup.yaml"
    path.write_text(YAML.format(root=tmp_path, mode="staged", sources=ONE_SOURCE))
    return path


def state(folder: Path) -> Any:
    return json.loads((folder / "primary" / "monitor" / "state.json").read_text())["body"]


def test_a_missed_objective_is_red_and_told(
    installation: Path, airflow: Callable[[Mapping[str, str]], Airflow], tmp_path: Path
) -> None:
    run = airflow({"NEUROCA_BACKUP_CONFIG": str(installation)}).run("monitor_objectives")

    assert run.state == "failed"
    assert {run.tasks[task] for task in KINDS} == {"success"}, "they have looked"
    assert (run.tasks["record"], run.tasks[VERDICT]) == ("success", "failed")
    assert run.tries[VERDICT] == 1, "no retry makes a backup"
    told = run.xcoms["record/return_value"]["message"]
    assert "BREACH: database/postgres: has its last verified backup from" in told
    assert "its RPO is 24 h" in told
    assert "BREACH: database/backup_database: the DAG is paused" in told, "Airflow was asked"
    assert "no catalog is configured" in told
    assert "rpo/database/postgres" in state(tmp_path)["told"]


def test_the_four_concerns_are_looked_at_side_by_side_then_told_then_judged(
    configure: Callable[..., Path], parsed: Callable[[], dict[str, DAG]]
) -> None:
    configure()

    dag = parsed()["monitor_objectives"]

    assert sorted(dag.task_ids) == sorted([*KINDS, "record", VERDICT])
    assert dag.get_task("record").upstream_task_ids == set(KINDS)
    assert dag.get_task("record").trigger_rule == "all_done"
    assert dag.get_task("record").downstream_task_ids == {VERDICT}
    assert not any(dag.get_task(task).upstream_task_ids for task in KINDS)
    assert not dag.catchup
    assert dag.params.dump() == {"component": "all", "dry_run": False}
    assert MonitorRequest.parse(dag.params.dump()) == MonitorRequest()


def test_every_kind_of_finding_is_some_tasks_concern() -> None:
    looked_for = [kind for kinds in KINDS.values() for kind in kinds]

    assert sorted([*looked_for, Kind.CHECK]) == sorted(Kind)


@pytest.mark.parametrize(
    ("params", "named"),
    [({"componet": "all"}, "componet"), ({"component": "x"}, "'x'"), ({"dry_run": "no"}, "'no'")],
)
def test_a_wrong_field_is_named(params: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        MonitorRequest.parse(params)


class Ti:
    """Stands in for a task instance: what the looking tasks have left, what Airflow answers."""

    def __init__(self, **reports: Any) -> None:
        self.reports = reports
        self.dag: Any = SimpleNamespace(is_paused=False, next_dagrun=None)
        self.runs: dict[tuple[str, ...], int] = {}

    def xcom_pull(self, *, task_ids: str) -> Any:
        return self.reports.get(task_ids)

    def get_dag(self, dag_id: str) -> Any:
        assert dag_id == "backup_database"
        if isinstance(self.dag, Exception):
            raise self.dag
        return self.dag

    def get_dr_count(
        self, dag_id: str, logical_dates: Any, states: tuple[str, ...] | list[str] = ()
    ) -> int:
        assert dag_id == "backup_database"
        assert [one.minute for one in logical_dates] == [0]
        return self.runs.get(tuple(states), 0)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was sent to people."""
    from neuroca_backup.notifications import channels  # noqa: PLC0415 - after the environment

    found: list[str] = []

    def send(_: Any, *, subject: str, message: str, context: Any) -> int:
        assert context
        found.append(f"{subject}\n{message}")
        return 1

    monkeypatch.setattr(channels.Channels, "send", send)
    return found


def context(ti: Ti, **params: Any) -> Any:
    run = SimpleNamespace(dag_id="monitor_objectives", run_id="manual")
    return {"params": params, "ti": ti, "dag_run": run}


def test_people_are_told_once_and_the_verdict_stays_red(
    installation: Path, sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.sdk.exceptions import AirflowFailException  # noqa: PLC0415 - after the environment

    from neuroca_backup.operators import monitor  # noqa: PLC0415 - as above

    monkeypatch.setenv("NEUROCA_BACKUP_CONFIG", str(installation))
    ti = Ti()
    look: Any = {
        "objectives": monitor.RecoveryPointsOperator(task_id="objectives"),
        "forecast": monitor.ForecastOperator(task_id="forecast"),
        "restore_tests": monitor.RestoreTestsOperator(task_id="restore_tests"),
    }
    for name, task in look.items():
        ti.reports[name] = task.execute(context(ti))
    record = monitor.RecordOperator(task_id="record")
    verdict = monitor.VerdictOperator(task_id=VERDICT)

    dry = record.execute(context(ti, dry_run=True))
    assert (dry["told"], sent) == (0, [])
    ti.reports["record"] = record.execute(context(ti))
    assert ti.reports["record"]["told"] == 5
    again = record.execute(context(ti))

    assert again == ti.reports["record"] | {"told": 0}
    (message,) = sent
    assert message.startswith("NCA backups: 3 breaches: schedules, catalog, database\n")
    assert "schedules: the check did not come to its end" in message, "it left nothing"
    with pytest.raises(AirflowFailException, match="database/postgres: has its last"):
        verdict.execute(context(ti))
    verdict.execute(context(ti, dry_run=True))
    ti.reports["record"] = None
    with pytest.raises(AirflowFailException, match="has left nothing"):
        verdict.execute(context(ti))


@pytest.mark.parametrize(
    ("changes", "level", "said"),
    [
        ({"runs": {(): 1}}, "", ""),
        ({"runs": {(): 1, ("failed",): 1}}, "warning", "failed"),
        ({"runs": {}}, "breach", "no run was started at"),
        ({"dag": SimpleNamespace(is_paused=True, next_dagrun=None)}, "breach", "is paused"),
    ],
)
def test_what_airflow_says_of_the_schedule_is_judged(
    installation: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    level: str,
    said: str,
) -> None:
    from neuroca_backup.operators import monitor  # noqa: PLC0415 - after the environment

    monkeypatch.setenv("NEUROCA_BACKUP_CONFIG", str(installation))
    ti = Ti()
    ti.__dict__.update(changes)

    found = monitor.SchedulesOperator(task_id="schedules").execute(context(ti))

    assert found["looked_at"] == 1
    assert [one["level"] for one in found["findings"]] == [level] * bool(level)
    assert said in "".join(one["problem"] for one in found["findings"])


@pytest.mark.parametrize(
    ("status", "said"), [(404, "Airflow has no such DAG"), (503, "Airflow does not tell")]
)
def test_a_dag_that_is_not_there_and_an_airflow_that_does_not_tell_are_told_apart(
    installation: Path, monkeypatch: pytest.MonkeyPatch, status: int, said: str
) -> None:
    from airflow.sdk.exceptions import (  # noqa: PLC0415 - after the environment
        AirflowRuntimeError,
        ErrorType,
    )
    from airflow.sdk.execution_time.comms import ErrorResponse  # noqa: PLC0415 - as above

    from neuroca_backup.operators import monitor  # noqa: PLC0415 - as above

    monkeypatch.setenv("NEUROCA_BACKUP_CONFIG", str(installation))
    ti = Ti()
    ti.dag = AirflowRuntimeError(
        ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail={"status_code": status})
    )

    (found,) = monitor.SchedulesOperator(task_id="schedules").execute(context(ti))["findings"]

    assert (found["level"], said in found["problem"]) == ("breach", True)


def test_what_was_told_is_not_told_again_as_a_failed_run(
    caplog: pytest.LogCaptureFixture,
) -> None:
    notice = MonitorNotice(NotificationSettings(), verdict=VERDICT)
    run = {"dag_run": SimpleNamespace(dag_id="monitor_objectives", run_id="r"), "reason": "x"}

    notice({**run, "ti": SimpleNamespace(task_id=VERDICT)})  # type: ignore[typeddict-item]
    assert "failed" not in caplog.text
    notice({**run, "ti": SimpleNamespace(task_id="record")})  # type: ignore[typeddict-item]
    assert "monitor_objectives failed" in caplog.text
    caplog.clear()
    notice(run)  # type: ignore[arg-type]
    assert "monitor_objectives failed" in caplog.text, "whoever knows nothing tells"
