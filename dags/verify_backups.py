"""Reading stored backups back: one DAG, `verify_backups`."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, CronTriggerTimetable, Param

from neuroca_backup.notifications.failure import FailureNotice
from neuroca_backup.operators.groups import queue_for
from neuroca_backup.operators.verification import (
    CheckOperator,
    PlanVerificationOperator,
    RecordVerificationOperator,
)
from neuroca_backup.operators.verification_request import COMPONENTS, LEVELS
from neuroca_backup.settings import Role, default_path, load

DOC = """
### Reads every copy of every backup back

Within `verification.window` (a week) every copy in every store is read and held to its digests; a
part of them is also unsealed, and parsed by its engine. `plan` finds the sources, `check` runs once
for each of them, `record` sums up.

**A task is red.** A `check` names each copy that is damaged, with its store, its level before and
now, and what was found: restores already use the other store's copy; mend or replace this one, then
run `neuroca-backup verify BACKUP_ID`. If it says that a store does not answer, clear it once the
store does. If it says that copies are still overdue, the next run begins with them. **`record` is
red** whenever another task is, and when the document of a backup set is damaged. All of this is in
docs/reference/verification.md.
"""

PARAMS = {
    "component": Param(
        default=COMPONENTS[0], enum=list(COMPONENTS), title="Component", description="What of."
    ),
    "source": Param(
        default="",
        type="string",
        title="Source",
        description="Only this source and its parts; empty: all.",
    ),
    "level": Param(
        default=LEVELS[0],
        enum=list(LEVELS),
        title="Level",
        description="How deep each copy is read. sample: all to intact, a part of them deeper.",
    ),
    "whole": Param(
        default=False,
        type="boolean",
        title="All copies",
        description="Read every copy, and not just those whose turn it is; without a limit of "
        "time.",
    ),
    "dry_run": Param(
        default=False,
        type="boolean",
        title="Only show it",
        description="The log of `plan` says what would be read, and why; nothing is.",
    ),
}

settings = load(default_path())

with DAG(
    dag_id="verify_backups",
    description="Read every stored copy back within a week, and say which have fallen",
    schedule=CronTriggerTimetable(settings.verification.schedule, timezone="UTC"),
    catchup=False,
    max_active_runs=1,
    tags=["neuroca", "verification"],
    params=PARAMS,
    doc_md=DOC,
    on_failure_callback=FailureNotice(settings.notifications),
    default_args={
        "owner": "neuroca",
        "retries": 2,
        "retry_delay": timedelta(minutes=5),
        "retry_exponential_backoff": 2,
        "max_retry_delay": timedelta(minutes=30),
        # The copy that is begun last may take as long as its backup did.
        "execution_timeout": settings.verification.longest + timedelta(hours=24),
        **queue_for(Role.VERIFIER, settings.access),
    },
) as dag:
    plan = PlanVerificationOperator(task_id="plan")
    check = CheckOperator.partial(
        task_id="check",
        map_index_template="{{ task.order['component'] }}/{{ task.order['source'] }}",
        max_active_tis_per_dagrun=2,
    ).expand(order=plan.output)
    record = RecordVerificationOperator(task_id="record", trigger_rule="all_done")
    check >> record
