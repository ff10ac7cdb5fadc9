"""The DAG `restore`: one source, from a chosen backup, into a sandbox, another server or itself."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Param, chain

from neuroca_backup.notifications.failure import FailureNotice
from neuroca_backup.operators.groups import queue_of
from neuroca_backup.operators.restore import (
    CleanUpOperator,
    CompareOperator,
    FetchOperator,
    LoadOperator,
    PlanOperator,
    PreflightOperator,
    PublishOperator,
    RecordOperator,
    SandboxOperator,
)
from neuroca_backup.operators.restore_request import PREFERENCES, TARGETS
from neuroca_backup.settings import default_path, load

DOC = """
### Restores one source

Trigger it with the form. Without changes it restores the newest verified backup into a throwaway
server, compares it with what was backed up, and removes the server again: a rehearsal that
touches nothing.

* **plan** checks the form and chooses the backup. **preflight** refuses what cannot or may not be
  done, before anything is touched. **fetch** checks every byte; a damaged copy falls back to
  another store. **load** works beside what is there, **compare** counts and checks, and only then
  **publish** puts the copy in its place.
* **record** notes the restore whatever became of it; it is red if the restore failed.
* `in_place` replaces the data of the running source. It needs `confirm`: the source's name.

**A task is red.** The last lines of its log say what is wrong and what to do. Nothing was
published unless `publish` is green. Trigger a new run once it is mended.
"""

settings = load(default_path())
sources = list(settings.sources)

PARAMS = {
    "source": Param(
        sources[0],
        type="string",
        enum=sources,
        title="Source",
        description="What to restore; a source of backup.yaml.",
    ),
    "backup_id": Param(
        None,
        type=["null", "string"],
        title="Backup id",
        description="Exactly this backup, such as 20261123T020000Z-1f0c9a3e-postgres. Empty: the "
        "newest verified one.",
    ),
    "before": Param(
        None,
        type=["null", "string"],
        format="date-time",
        title="Before",
        description="The newest verified backup taken before this time. Not together with a "
        "backup id.",
    ),
    "prefer_store": Param(
        "auto",
        type="string",
        enum=list(PREFERENCES),
        values_display={
            "auto": "Nearest good copy",
            "primary": "Primary first",
            "secondary": "Secondary first",
        },
        title="Read from",
        description="The store to try first; a damaged or missing copy falls back to the other.",
    ),
    "target": Param(
        "sandbox",
        type="string",
        enum=list(TARGETS),
        values_display={
            "sandbox": "A throwaway server",
            "connection": "Another server",
            "in_place": "In place: replace the running source's data",
        },
        title="Target",
        description="Where to restore to.",
    ),
    "target_connection": Param(
        None,
        type=["null", "string"],
        title="Target connection",
        description="For another server: its Airflow connection. A server that is backed up is "
        "refused.",
    ),
    "confirm": Param(
        None,
        type=["null", "string"],
        title="Confirm",
        description="For an in-place restore only: type the name of the source.",
    ),
    "keep_sandbox": Param(
        default=False,
        type="boolean",
        title="Keep the throwaway server",
        description="Leave it running to look at the data. It holds production data in clear: "
        "stop it when you are done.",
    ),
}

with DAG(
    dag_id="restore",
    description="Restore a source from a verified backup and compare it with what was backed up",
    schedule=None,
    catchup=False,
    max_active_runs=1,
    tags=["neuroca", "restore"],
    params=PARAMS,
    doc_md=DOC,
    on_failure_callback=FailureNotice(settings.notifications),
    default_args={
        "owner": "neuroca",
        "retries": 2,
        "retry_delay": timedelta(seconds=30),
        "retry_exponential_backoff": 2,
        "max_retry_delay": timedelta(minutes=5),
        "execution_timeout": settings.objectives.rto.full_system,
        **queue_of(settings.pipeline),  # the spool and the sandbox are on one machine
    },
) as dag:
    sandbox = SandboxOperator(task_id="sandbox")
    publish = PublishOperator(task_id="publish")
    record = RecordOperator(task_id="record", trigger_rule="all_done")
    clean_up = CleanUpOperator(task_id="clean_up")
    chain(
        PlanOperator(task_id="plan"),
        sandbox,
        PreflightOperator(task_id="preflight"),
        FetchOperator(task_id="fetch"),
        LoadOperator(task_id="load"),
        CompareOperator(task_id="compare"),
        publish,
        # Beside, not before, the teardown: within its scope a sandbox that did not start would
        # keep the record from being made.
        [record, clean_up.as_teardown(setups=sandbox, on_failure_fail_dagrun=True)],
    )
