"""Whether the objectives are kept: one DAG, `monitor_objectives`."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, CronTriggerTimetable, Param

from neuroca_backup.model.identity import EVERYTHING
from neuroca_backup.notifications.monitor import MonitorNotice
from neuroca_backup.operators.groups import queue_for
from neuroca_backup.operators.monitor import (
    VERDICT,
    ForecastOperator,
    RecordOperator,
    RecoveryPointsOperator,
    RestoreTestsOperator,
    SchedulesOperator,
    VerdictOperator,
)
from neuroca_backup.settings import Role, default_path, load

DOC = """
### Are we inside our objectives right now?

* **schedules**: is every backup scheduled, unpaused, started on time, and did it succeed?
* **objectives**: how old is what a restore would bring back now (RPO), in how many stores is it,
  and has it suddenly lost much of its content?
* **forecast**: would a restore be done within the RTO?
* **restore_tests**: was the restore of every source tested lately?
* **record** tells people by the channels of `notifications` what is new, worse, or has lasted for
  `monitor.repeat`. It notes that in the audit trail.
* **verdict** is red while anything is missed. Its log says what, how old, against which limit, and
  what to do.

**A task is red.** Where it is `verdict` alone, an objective is missed: do what its log says, then
look again with a new run. The four that look are green once they have looked, whatever they saw:
a red one has seen nothing, and its log says why. What is not known counts as missed.
"""

settings = load(default_path())
components = list(dict.fromkeys(source.component.value for source in settings.sources.values()))

PARAMS = {
    "component": Param(
        EVERYTHING,
        type="string",
        enum=[EVERYTHING, *components],
        values_display={EVERYTHING: "All components"},
        title="Component",
        description="Look at this one alone. The forecast is of the whole system always.",
    ),
    "dry_run": Param(
        default=False,
        type="boolean",
        title="Only show it",
        description="The logs say what is wrong; nobody is told, and the run stays green.",
    ),
}

with DAG(
    dag_id="monitor_objectives",
    description="Look whether the recovery objectives are kept, and tell people where they are not",
    schedule=CronTriggerTimetable(settings.monitor.schedule, timezone="UTC"),
    catchup=False,
    max_active_runs=1,
    tags=["neuroca", "monitor"],
    params=PARAMS,
    doc_md=DOC,
    on_failure_callback=MonitorNotice(settings.notifications, verdict=VERDICT),
    default_args={
        "owner": "neuroca",
        "retries": 2,
        "retry_delay": timedelta(minutes=1),
        "execution_timeout": timedelta(minutes=30),
        **queue_for(Role.VERIFIER, settings.access),
    },
) as dag:
    looking = [
        SchedulesOperator(task_id="schedules"),
        RecoveryPointsOperator(task_id="objectives"),
        ForecastOperator(task_id="forecast"),
        RestoreTestsOperator(task_id="restore_tests"),
    ]
    record = RecordOperator(task_id="record", trigger_rule="all_done")
    looking >> record
    record >> VerdictOperator(task_id=VERDICT)
