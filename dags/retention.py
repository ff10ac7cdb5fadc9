"""Deleting what has expired: one DAG, `retention`."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, CronTriggerTimetable, Param

from neuroca_backup.notifications.failure import FailureNotice
from neuroca_backup.operators.groups import queue_for
from neuroca_backup.operators.retention import (
    ApplyRetentionOperator,
    PlanRetentionOperator,
    RecordRetentionOperator,
    SweepOperator,
)
from neuroca_backup.settings import Role, default_path, load

DOC = """
### Deletes what has expired

`plan` logs for every backup what becomes of it, and why. `apply` runs once for each source that
needs it: what has expired is marked and can be taken back for the grace period
(`neuroca-backup retention undelete ID`); after that it is deleted from every store. `sweep`
removes what killed runs left behind. The newest verified backups of a source stay whatever their
age, and so does all that younger backups need.

**A task is red.** An `apply` whose log says that something is not known has deleted nothing of its
source: mend what it names, then clear it. One that says that too many would expire at once asks for
a confirmation: look at the log of `plan`, and trigger the DAG with `confirm` if that is right.
**`record` is red** whenever another task is.
"""

PARAMS = {
    "dry_run": Param(
        default=False,
        type="boolean",
        title="Only show it",
        description="The log of `plan` says what would be done; nothing is touched.",
    ),
    "confirm": Param(
        default=False,
        type="boolean",
        title="Let many expire at once",
        description="A source of which more expires at once than retention.most_at_once allows is "
        "left alone, unless you have looked at the plan and confirm it here.",
    ),
}

settings = load(default_path())

with DAG(
    dag_id="retention",
    description="Delete what has expired from every store, never the last good copy",
    schedule=CronTriggerTimetable(settings.retention.schedule, timezone="UTC"),
    catchup=False,
    max_active_runs=1,
    tags=["neuroca", "retention"],
    params=PARAMS,
    doc_md=DOC,
    on_failure_callback=FailureNotice(settings.notifications),
    default_args={
        "owner": "neuroca",
        "retries": 2,
        "retry_delay": timedelta(minutes=5),
        "retry_exponential_backoff": 2,
        "max_retry_delay": timedelta(minutes=30),
        "execution_timeout": timedelta(hours=12),
        **queue_for(Role.RETENTION, settings.access),
    },
) as dag:
    plan = PlanRetentionOperator(task_id="plan")
    apply = ApplyRetentionOperator.partial(
        task_id="apply",
        map_index_template="{{ task.order['component'] }}/{{ task.order['source'] }}",
        max_active_tis_per_dagrun=2,
    ).expand(order=plan.output)
    sweep = SweepOperator(task_id="sweep", trigger_rule="all_done")
    record = RecordRetentionOperator(task_id="record", trigger_rule="all_done")
    apply >> sweep >> record
