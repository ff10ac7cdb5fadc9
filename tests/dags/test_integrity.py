"""The DAG files as Airflow sees them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import AssetOrTimeSchedule, CronTriggerTimetable
from airflow.sdk.definitions.taskgroup import MappedTaskGroup

from dags.stand import ONE_SOURCE, REPOSITORY, YAML, airflow_environment
from neuroca_backup.errors import ConfigurationError
from neuroca_backup.operators.backup_request import BACKUP_TYPES, BackupRequest
from neuroca_backup.operators.retention import RetentionRequest
from neuroca_backup.services.backup import BackupType
from support.registering import register

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airflow.sdk import DAG

STAGED = ["dump", "compress", "encrypt", "upload", "replicate", "verify"]
STREAMED = ["stream", "replicate", "verify"]
CHECKS = ["sandbox", "space", "integrity", "versions", "state"]
RESTORE = [
    "await_retrieval",
    "fetch",
    "stop",
    "save",
    "load",
    "compare",
    "publish",
    "examine",
    "record",
]


TWO_SOURCES = """\
  sources:
    postgres: {component: database, engine: postgresql, connection: one}
    memory: {component: database, engine: postgresql, connection: two}
"""


FILES = """\
  sources:
    configuration: {component: configuration, engine: plain_files, options: {root: /etc/nca}}
    models: {component: model_weights, engine: pieces, options: {root: /srv/models}}
"""


def edges(dag: DAG) -> set[tuple[str, str]]:
    return {(task.task_id, below) for task in dag.tasks for below in task.downstream_task_ids}


def line(*task_ids: str) -> set[tuple[str, str]]:
    return set(pairwise(task_ids))


def test_a_staged_source_has_exactly_six_tasks_in_a_line_and_the_spool_is_cleared_after(
    configure: Callable[..., Path], parsed: Callable[[], dict[str, DAG]]
) -> None:
    configure()

    dag = parsed()["backup_database"]

    stages = [f"postgres.{stage}" for stage in STAGED]
    assert sorted(dag.task_ids) == sorted([*stages, "clear_spool", "set"])
    assert edges(dag) == line(*stages, "set") | {("postgres.upload", "clear_spool")}
    assert dag.get_task("clear_spool").is_teardown
    assert dag.get_task("clear_spool").on_failure_fail_dagrun


def test_a_streamed_source_has_no_spool(
    configure: Callable[..., Path], parsed: Callable[[], dict[str, DAG]]
) -> None:
    configure(mode="streamed")

    dag = parsed()["backup_database"]

    stages = [f"postgres.{stage}" for stage in STREAMED]
    assert sorted(dag.task_ids) == sorted([*stages, "set"])
    assert edges(dag) == line(*stages, "set")


def test_by_default_all_four_databases_are_backed_up_side_by_side(
    configure: Callable[..., Path], parsed: Callable[[], dict[str, DAG]]
) -> None:
    configure(sources="")

    dag = parsed()["backup_database"]

    sources = ("postgres", "mongodb", "redis", "vector")
    recording: Any = dag.get_task("set")
    assert tuple(tasks.source for tasks in recording.sources) == sources
    assert recording.upstream_task_ids == {f"{source}.verify" for source in sources}
    assert not any(dag.get_task(f"{source}.dump").upstream_task_ids for source in sources)


def test_the_set_is_recorded_last_whatever_became_of_the_sources(
    configure: Callable[..., Path], parsed: Callable[[], dict[str, DAG]]
) -> None:
    configure(sources=TWO_SOURCES)

    dag = parsed()["backup_database"]

    recording: Any = dag.get_task("set")
    assert recording.upstream_task_ids == {"postgres.verify", "memory.verify"}
    assert recording.trigger_rule == "all_done"
    assert [tasks.source for tasks in recording.sources] == ["postgres", "memory"]
    assert not recording.is_teardown, "a teardown's failure would not count"


def test_a_backup_has_its_type_on_the_form_and_a_scheduled_run_takes_the_default(
    configure: Callable[..., Path], parsed: Callable[[], dict[str, DAG]]
) -> None:
    configure()

    params = parsed()["backup_database"].params

    param = params.get_param("backup_type")
    assert params.dump() == {"backup_type": "auto"}
    assert BackupRequest.parse(params.dump()).type is BackupType.AUTO
    assert param.schema["enum"] == list(BACKUP_TYPES) == list(BackupType)
    assert param.description


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"backup_type": "differential"}, "'differential' is not a choice"),
        ({"type": "full"}, "no field 'type'"),
    ],
)
def test_a_backup_form_that_means_nothing_is_refused(form: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        BackupRequest.parse(form)


def test_restore_is_one_line_from_the_checks_over_the_approval_to_the_record(
    configure: Callable[..., Path], parsed: Callable[[], dict[str, DAG]]
) -> None:
    configure()

    dag = parsed()["restore"]

    checks = [f"checks.{check}" for check in CHECKS]
    steps = [f"source.{step}" for step in RESTORE]
    fed = {("plan", one.task_id) for one in dag.tasks}
    assert edges(dag) - fed == line(*checks, "approve", "services", *steps) | {
        ("source.examine", "source.clean_up"),
        ("source.examine", "start_services"),
        ("source.examine", "agree"),
    }
    for teardown in ("source.clean_up", "start_services"):
        assert dag.get_task(teardown).is_teardown
        assert dag.get_task(teardown).on_failure_fail_dagrun
    for decides in ("source.record", "agree"):
        assert dag.get_task(decides).trigger_rule == "all_done"
        assert not dag.get_task(decides).downstream_task_ids, "else it would decide nothing"
    assert dag.get_task("approve").trigger_rule == "all_done_min_one_success"


def test_an_approval_waits_as_long_as_backup_yaml_says_and_is_never_given_by_itself(
    configure: Callable[..., Path], parsed: Callable[[], dict[str, DAG]]
) -> None:
    path = configure()
    path.write_text(path.read_text() + "  restore: {response_timeout: 90m}\n")

    approve: Any = parsed()["restore"].get_task("approve")

    assert approve.approvals == 1, "the default"
    assert approve.response_timeout == timedelta(minutes=90)
    assert approve.defaults is None
    assert approve.retries == 0


def test_retention_runs_daily_and_ends_with_a_task_that_never_makes_a_failed_run_green(
    configure: Callable[..., Path], parsed: Callable[[], dict[str, DAG]]
) -> None:
    configure()

    dag = parsed()["retention"]

    timetable: Any = dag.timetable
    assert (timetable.expression, str(timetable.timezone)) == ("0 6 * * *", "UTC")
    assert (dag.catchup, dag.max_active_runs) == (False, 1)
    assert edges(dag) == line("plan", "apply", "sweep", "record")
    assert {dag.get_task(one).trigger_rule for one in ("sweep", "record")} == {"all_done"}
    assert dag.params.dump() == {"dry_run": False, "confirm": False}
    assert RetentionRequest.parse(dag.params.dump()) == RetentionRequest()


@pytest.mark.parametrize(
    ("form", "words"),
    [({"dry_run": "yes"}, "neither true nor false"), ({"dryrun": True}, "no field 'dryrun'")],
)
def test_a_retention_form_that_means_nothing_is_refused(form: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        RetentionRequest.parse(form)


def test_a_backup_runs_on_the_schedule_of_backup_yaml_one_run_at_a_time_without_catching_up(
    configure: Callable[..., Path], parsed: Callable[[], dict[str, DAG]]
) -> None:
    configure()

    dag = parsed()["backup_database"]

    timetable: Any = dag.timetable
    assert timetable.expression == "0 2 * * *"
    assert str(timetable.timezone) == "UTC"
    assert dag.catchup is False
    assert dag.max_active_runs == 1
    assert dag.on_failure_callback is not None
    dump = dag.get_task("postgres.dump")
    assert (dump.retries, dump.retry_exponential_backoff) == (2, 2)
    assert dump.execution_timeout == timedelta(hours=24), "the RPO of the component"


@pytest.fixture
def files(
    configure: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], dict[str, DAG]]:
    """Parse the DAGs of a configuration and of models, with these lines more in backup.yaml."""
    register(monkeypatch)

    def parse(more: str = "") -> dict[str, DAG]:
        from airflow.dag_processing.dagbag import DagBag  # noqa: PLC0415 - after the environment

        path = configure(sources=FILES)
        text = path.read_text()
        path.write_text(text.replace("    database:", "    configuration:") + more)
        bag = DagBag(str(REPOSITORY / "dags"))
        assert bag.import_errors == {}
        return dict(bag.dags)

    return parse


def test_a_source_that_is_many_things_has_its_stages_once_for_each_that_is_found(
    files: Callable[..., dict[str, DAG]],
) -> None:
    dag = files()["backup_model_weights"]

    stages = [f"models.part.{stage}" for stage in STAGED]
    fed = {("models.discover", stage) for stage in stages}
    assert edges(dag) - fed == line(*stages, "set") | {("models.part.upload", "clear_spool")}
    assert {type(dag.get_task(stage).get_closest_mapped_task_group()) for stage in stages} == {
        MappedTaskGroup
    }
    dump, verify = dag.get_task(stages[0]), dag.get_task(stages[-1])
    assert dump.max_active_tis_per_dagrun == 2, "the spool never holds the dumps of all"
    assert verify.max_active_tis_per_dagrun is None
    assert {dag.get_task(stage).weight_rule for stage in stages} == {"upstream"}
    recording: Any = dag.get_task("set")
    assert [tasks.divided for tasks in recording.sources] == [True]
    assert dag.get_task("clear_spool").is_teardown


def test_the_configuration_is_backed_up_when_it_changes_and_at_its_times(
    files: Callable[..., dict[str, DAG]],
) -> None:
    dags = files()
    timetable: Any = dags["backup_configuration"].timetable

    assert isinstance(timetable, AssetOrTimeSchedule)
    assert timetable.timetable == CronTriggerTimetable("0 2 * * *", timezone="UTC")
    (asset,) = timetable.asset_condition.objects
    (watcher,) = asset.watchers
    assert asset.uri == "x-neuroca-change://configuration/configuration"
    assert watcher.trigger.serialize()[1] == {
        "source": "configuration",
        "every": 10.0,
        "settle": 10.0,
    }
    models: Any = dags["backup_model_weights"].timetable
    assert not models.can_be_scheduled, "a model is not watched"


def test_watching_can_be_tuned_and_switched_off(files: Callable[..., dict[str, DAG]]) -> None:
    tuned: Any = files("  watch: {every: 1m, settle: 5s}\n")["backup_configuration"].timetable
    off: Any = files("  watch: {enabled: false}\n")["backup_configuration"].timetable

    (watcher,) = tuned.asset_condition.objects[0].watchers
    assert (watcher.trigger.every, watcher.trigger.settle) == (60.0, 5.0)
    assert off == CronTriggerTimetable("0 2 * * *", timezone="UTC")


def test_a_component_without_a_schedule_is_run_by_hand_and_one_without_sources_has_no_dag(
    tmp_path: Path, configure: Callable[..., Path], parsed: Callable[[], dict[str, DAG]]
) -> None:
    text = YAML.format(root=tmp_path, mode="staged", sources=ONE_SOURCE)
    configure(text.replace('    database: "0 2 * * *"\n', '    logs: "0 2 * * *"\n'))

    dags = parsed()

    assert sorted(dags) == [
        "backup_database",
        "disaster_recovery",
        "monitor_objectives",
        "restore",
        "restore_test",
        "retention",
        "rotate_keys",
        "verify_backups",
    ]
    assert not dags["backup_database"].timetable.can_be_scheduled


def test_only_tasks_that_need_the_spool_are_pinned_to_its_queue(
    configure: Callable[..., Path], parsed: Callable[[], dict[str, DAG]]
) -> None:
    path = configure()
    path.write_text(path.read_text().replace("mode: staged", "mode: staged\n    queue: bigdisk"))

    dags = parsed()

    queues = {task.task_id: task.queue for task in dags["backup_database"].tasks}
    assert {t for t, queue in queues.items() if queue == "bigdisk"} == {
        *(f"postgres.{stage}" for stage in STAGED[:4]),
        "clear_spool",
    }
    assert {task.queue for task in dags["restore"].tasks} == {"bigdisk"}


def test_an_on_call_reader_finds_a_description_and_documentation_on_every_dag(
    configure: Callable[..., Path], parsed: Callable[[], dict[str, DAG]]
) -> None:
    configure()

    for dag in parsed().values():
        assert dag.description
        assert "A task is red" in (dag.doc_md or "")
        assert "neuroca" in dag.tags


def test_every_dag_survives_serialization(
    configure: Callable[..., Path], parsed: Callable[[], dict[str, DAG]]
) -> None:
    from airflow.serialization.serialized_objects import DagSerialization  # noqa: PLC0415

    configure()

    for dag in parsed().values():
        stored = json.loads(json.dumps(DagSerialization.to_dict(dag)))
        again = DagSerialization.from_dict(stored)
        assert sorted(again.task_ids) == sorted(dag.task_ids)


def test_a_verified_backup_updates_an_asset_named_after_component_and_source(
    configure: Callable[..., Path], parsed: Callable[[], dict[str, DAG]]
) -> None:
    configure()

    dag = parsed()["backup_database"]

    (asset,) = dag.get_task("postgres.verify").outlets
    assert asset.uri == "x-neuroca-backup://database/postgres"
    others = [task for task in dag.tasks if task.task_id != "postgres.verify"]
    assert [task.task_id for task in others if task.outlets] == []


def test_a_broken_backup_yaml_is_one_clear_import_error_a_file(
    configure: Callable[..., Path],
) -> None:
    from airflow.dag_processing.dagbag import DagBag  # noqa: PLC0415 - after the environment

    path = configure()
    path.write_text(path.read_text().replace("mode: staged", "mode: stagged"))

    errors = DagBag(str(REPOSITORY / "dags")).import_errors

    assert len(errors) == len(list((REPOSITORY / "dags").glob("*.py")))
    for text in errors.values():
        assert "pipeline.mode" in text
        assert "stagged" in text
        assert str(path) in text
        assert "pydantic" not in text
        assert len(text.splitlines()) <= 12, text


@pytest.mark.parametrize("file", sorted((REPOSITORY / "dags").glob("*.py")), ids=lambda p: p.name)
def test_parsing_a_dag_file_costs_little_beyond_airflow_itself(
    file: Path, configure: Callable[..., Path], tmp_path: Path
) -> None:
    path = configure()
    program = (
        "import time, runpy, sys\n"
        "from airflow.sdk import DAG, Asset, BaseHook, BaseOperator, CronTriggerTimetable, Param\n"
        "from airflow.sdk import TaskGroup, chain\n"
        "import airflow.sdk.exceptions, airflow.dag_processing.dagbag\n"
        "begun = time.perf_counter()\n"
        "runpy.run_path(sys.argv[1])\n"
        "seconds = time.perf_counter() - begun\n"
        "heavy = {'boto3', 'psycopg', 'tink', 'airflow.providers.amazon.aws.hooks.base_aws'}\n"
        "print(f'SECONDS {seconds:.3f}')\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program, str(file)],
        env={
            **os.environ,
            **airflow_environment(tmp_path),
            "PYTHONPATH": str(REPOSITORY / "plugins"),
            "NEUROCA_BACKUP_CONFIG": str(path),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-4000:]
    seconds = float(done.stdout.split("SECONDS ")[1].split()[0])
    print(f"{file.name}: {seconds:.3f} s beyond Airflow's own import")  # noqa: T201 - the measurement
    assert "HEAVY []" in done.stdout
    # It takes about 0.2 s; the slack is for a busy machine. Airflow parses every 30 s.
    assert seconds < 3
