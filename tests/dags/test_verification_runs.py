"""The DAG `verify_backups`: its form, its structure, and whole runs of it over two directories."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from dags.stand import YAML
from neuroca_backup.catalog.memory import MemoryCatalog
from neuroca_backup.errors import ConfigurationError
from neuroca_backup.keyring.local import LocalKeyFile
from neuroca_backup.model.identity import Component
from neuroca_backup.model.status import Level
from neuroca_backup.operators.verification_request import VerificationRequest
from neuroca_backup.runtime import Runtime
from neuroca_backup.services.inventory import read_verification
from neuroca_backup.settings import load
from neuroca_backup.stores.local import LocalStore
from support.histories import BOTH

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from airflow.sdk import DAG

    from dags.stand import Airflow
    from neuroca_backup.model.identity import BackupRef

SOURCES = """\
  sources:
    first: {{component: configuration, engine: filetree, options: {{parameters: [{root}/first]}}}}
    second: {{component: configuration, engine: filetree, options: {{parameters: [{root}/second]}}}}
"""


def test_it_runs_daily_and_ends_with_a_task_that_never_makes_a_failed_run_green(
    configure: Callable[..., Path], parsed: Callable[[], dict[str, DAG]]
) -> None:
    configure()

    dag = parsed()["verify_backups"]

    timetable: Any = dag.timetable
    assert (timetable.expression, str(timetable.timezone)) == ("0 7 * * *", "UTC")
    assert (dag.catchup, dag.max_active_runs) == (False, 1)
    assert {(t.task_id, b) for t in dag.tasks for b in t.downstream_task_ids} == {
        ("plan", "check"),
        ("check", "record"),
    }
    assert dag.get_task("record").trigger_rule == "all_done"
    assert dag.on_failure_callback is not None
    assert VerificationRequest.parse(dag.params.dump()) == VerificationRequest()


def test_its_schedule_is_that_of_backup_yaml(
    configure: Callable[..., Path], parsed: Callable[[], dict[str, DAG]]
) -> None:
    path = configure()
    path.write_text(path.read_text() + "  verification: {schedule: '30 5 * * *'}\n")

    timetable: Any = parsed()["verify_backups"].timetable

    assert timetable.expression == "30 5 * * *"


def test_a_form_chooses_what_is_read_and_how_deep() -> None:
    form = {
        "component": "logs",
        "source": "models__llama_3",
        "level": "readable",
        "whole": True,
        "dry_run": True,
    }
    assert VerificationRequest.parse(form) == VerificationRequest(
        component=Component.LOGS,
        source="models__llama_3",
        level=Level.READABLE,
        whole=True,
        dry_run=True,
    )


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"dryrun": True}, "no field 'dryrun'"),
        ({"whole": "yes"}, "whole: 'yes' is neither true nor false"),
        ({"component": "databases"}, "component: 'databases' is not a choice"),
        ({"level": "restored"}, "level: 'restored' is not a choice"),
        ({"level": 3}, "level: 3 is not a choice"),
        ({"source": "../../etc"}, "is not the name of a source"),
        ({"source": 7}, "is not the name of a source"),
    ],
)
def test_a_form_that_means_nothing_is_refused(form: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        VerificationRequest.parse(form)


@pytest.fixture
def refs(tmp_path: Path) -> dict[str, BackupRef]:
    """Backups of two directories of files in two stores."""
    for name in BOTH:
        LocalStore(name, tmp_path / name).initialise()
    LocalKeyFile.generate(tmp_path / "keys.json")
    text = YAML.format(root=tmp_path, mode="staged", sources=SOURCES.format(root=tmp_path))
    (tmp_path / "backup.yaml").write_text(text)
    runtime = Runtime.build(load(tmp_path / "backup.yaml"), _no_connections())
    made = {}
    for source in ("first", "second"):
        (tmp_path / source).mkdir()
        (tmp_path / source / "a.yaml").write_text("a: 1\n")
        made[source] = ref = runtime.ref("20261123T020000Z-1f0c9a3e", source)
        runtime.backups.run(ref, mode="staged")
        runtime.verifier.verify(ref, level=Level.PARSED)
    return made


def _no_connections() -> Any:
    return None


def level(folder: Path, store: str, ref: BackupRef) -> Level:
    found = read_verification(LocalStore(store, folder / store), ref)
    assert found is not None
    return found.level


def test_a_run_reads_all_copies_and_is_red_for_the_one_that_has_fallen(
    refs: dict[str, BackupRef],
    airflow: Callable[[Mapping[str, str]], Airflow],
    tmp_path: Path,
) -> None:
    made = airflow({"NEUROCA_BACKUP_CONFIG": str(tmp_path / "backup.yaml")})
    (member,) = (tmp_path / "secondary" / refs["second"].prefix).rglob("tree.tar")
    member.write_bytes(member.read_bytes()[:-1])

    red = made.run("verify_backups", {"whole": True, "level": "readable"})

    assert red.state == "failed"
    assert (red.tasks["check[0]"], red.tasks["check[1]"]) == ("success", "failed")
    assert red.labels["check[1]"] == "configuration/second"
    assert red.tries["check[1]"] == 1, "no retry mends a copy"
    assert red.tasks["record"] == "failed"
    told = f"{refs['second'].backup_id} in secondary was PARSED and is PRESENT: "
    assert red.output.count(told) >= 2, "the task and the summary both say it"
    assert level(tmp_path, "secondary", refs["second"]) is Level.PRESENT
    assert level(tmp_path, "primary", refs["second"]) is Level.READABLE
    assert level(tmp_path, "secondary", refs["first"]) is Level.PARSED


class Tasks:
    """The operators in this process, over a runtime of two directories."""

    def __init__(self, folder: Path, patched: pytest.MonkeyPatch) -> None:
        from neuroca_backup.operators import verification  # noqa: PLC0415 - after the environment

        self.module = verification
        self.runtime = Runtime.build(load(folder / "backup.yaml"), _no_connections())
        self.runtime.__dict__["catalog"] = MemoryCatalog()
        hook = SimpleNamespace(runtime=self.runtime)
        patched.setattr(verification, "NeurocaHook", lambda: hook)
        self.pushed: dict[str, Any] = {}

    def plan(self, **form: Any) -> Any:
        return self.module.PlanVerificationOperator(task_id="plan").execute(self._context(**form))

    def check(self, order: dict[str, str], **form: Any) -> Any:
        task = self.module.CheckOperator(task_id="check", order=order)
        task.execute(self._context(**form))
        return self.pushed["report"]

    def record(self, planned: Any, reports: list[Any]) -> Any:
        context = self._context()
        context["ti"].xcom_pull = lambda task_ids, **_: planned if task_ids == "plan" else reports
        return self.module.RecordVerificationOperator(task_id="record").execute(context)

    def _context(self, **form: Any) -> Any:
        ti = SimpleNamespace(xcom_push=lambda key, value: self.pushed.update({key: value}))
        run = SimpleNamespace(dag_id="verify_backups", run_id="manual")
        return {"params": form, "ti": ti, "dag_run": run}


@pytest.fixture
def tasks(
    refs: dict[str, BackupRef],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Tasks:
    return Tasks(tmp_path, monkeypatch)


def test_a_dry_run_logs_what_would_be_read_and_hands_nothing_on(
    tasks: Tasks, refs: dict[str, BackupRef], capsys: pytest.CaptureFixture[str]
) -> None:
    assert tasks.plan(dry_run=True, whole=True, level="readable") == []

    told = "".join(capsys.readouterr())
    assert "configuration/first: 2 copies would be checked" in told
    assert f"{refs['first'].backup_id} in primary to READABLE: all are asked for" in told
    assert tasks.plan(source="second") == [{"component": "configuration", "source": "second"}]


def test_a_green_run_sums_up_how_many_were_read_how_deep_and_is_noted(tasks: Tasks) -> None:
    orders = tasks.plan()
    reports = [tasks.check(order, whole=True, level="intact") for order in orders]

    told = tasks.record(orders, reports)

    assert (told["checked"], told["levels"], told["problems"]) == (4, {"intact": 4}, [])
    event = next(one for one in tasks.runtime.catalog.events() if one.subject == "all sources")
    assert (event.actor, event.action) == ("airflow:verify_backups/manual", "verify")


@pytest.mark.parametrize(
    ("planned", "reports", "words"),
    [
        (None, [], "`plan` failed: nothing was checked"),
        ([{}, {}], [None, None], "2 sources were not checked at all"),
    ],
)
def test_a_run_whose_tasks_failed_is_red_whatever_they_left(
    tasks: Tasks, planned: Any, reports: list[Any], words: str
) -> None:
    from airflow.sdk.exceptions import AirflowFailException  # noqa: PLC0415 - as above

    with pytest.raises(AirflowFailException, match=words):
        tasks.record(planned, reports)


def test_a_run_is_red_for_a_damaged_document_of_a_set_and_for_what_is_still_overdue(
    tasks: Tasks, tmp_path: Path
) -> None:
    from airflow.sdk.exceptions import AirflowFailException  # noqa: PLC0415 - as above

    orders = tasks.plan(source="first")
    report = tasks.check(orders[0], whole=True)
    with pytest.raises(AirflowFailException, match="3 copies are still overdue"):
        tasks.record(orders, [{**report, "left_overdue": 3}])
    key = "sets/configuration/20261123T020000Z-1f0c9a3e.json"
    LocalStore("primary", tmp_path / "primary").put(key, b"{}")
    with pytest.raises(AirflowFailException, match=f"primary:{key}"):
        tasks.record(orders, [report])
