"""Wrapping the keys of backups anew: one DAG, `rotate_keys`."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, CronTriggerTimetable, Param

from neuroca_backup.notifications.failure import FailureNotice
from neuroca_backup.operators.groups import queue_for
from neuroca_backup.operators.rotation import (
    PlanRotationOperator,
    RecordRotationOperator,
    RotateKeysOperator,
)
from neuroca_backup.settings import Role, default_path, load

DOC = """
### Looks after the keys of backups

Every month `plan` looks how old the keys are, and `rotate` counts for each source which keysets are
still under an old key. Nothing is changed.

**A task is red.** `record` is where a key is due to be rotated (`key_rotation.remind_after`), or a
backup is under a key that backup.yaml does not name any more. A `rotate` is where a keyset could
not be read, opened or written: its log names it; the others were done, and it may be cleared.

**To rotate:** make the new key, name it under `encryption` in backup.yaml, move the old one to
`key_rotation.previous_kms_key_ids`, and trigger this DAG with `rotate`. Only the small documents
of wrapped keys are rewritten; each is opened with every new key first. After a key was stolen, set
`purge_old` as well: buckets then lose the old versions, too. A run that was killed is repeated.
"""

PARAMS = {
    "rotate": Param(
        default=False,
        type="boolean",
        title="Rotate",
        description="Wrap every keyset for the keys that backup.yaml names now. Without it, this "
        "is only looked at.",
    ),
    "purge_old": Param(
        default=False,
        type="boolean",
        title="Remove old versions",
        description="After a key was stolen: remove from buckets the versions that it opens.",
    ),
}

settings = load(default_path())

with DAG(
    dag_id="rotate_keys",
    description="Look after the keys of backups, and wrap keysets anew when it is asked for",
    schedule=CronTriggerTimetable(settings.key_rotation.schedule, timezone="UTC"),
    catchup=False,
    max_active_runs=1,
    tags=["neuroca", "keys"],
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
        **queue_for(Role.ROTATOR, settings.access),
    },
) as dag:
    plan = PlanRotationOperator(task_id="plan")
    rotate = RotateKeysOperator.partial(
        task_id="rotate",
        map_index_template="{{ task.order['component'] }}/{{ task.order['source'] }}",
        max_active_tis_per_dagrun=2,
    ).expand(order=plan.output)
    record = RecordRotationOperator(task_id="record", trigger_rule="all_done")
    rotate >> record
