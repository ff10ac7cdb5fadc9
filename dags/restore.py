"""The DAG `restore`: one source or a whole set, into a sandbox, another server or itself."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Param, chain, task_group

from neuroca_backup.notifications.failure import FailureNotice
from neuroca_backup.operators.groups import queue_for, queue_of
from neuroca_backup.operators.restore import (
    STALE_SANDBOX,
    AgreeOperator,
    CleanUpOperator,
    CompareOperator,
    ExamineOperator,
    FetchOperator,
    LoadOperator,
    PublishOperator,
    RecordOperator,
    SaveOperator,
)
from neuroca_backup.operators.restore_approval import ApproveOperator
from neuroca_backup.operators.restore_checks import (
    IntegrityOperator,
    SandboxOperator,
    SpaceOperator,
    StateOperator,
    VersionsOperator,
)
from neuroca_backup.operators.restore_plan import PlanOperator
from neuroca_backup.operators.restore_request import ONE_SOURCE, PREFERENCES, RETRIEVALS, TARGETS
from neuroca_backup.operators.restore_retrieval import AwaitRetrievalSensor
from neuroca_backup.operators.restore_services import (
    ServicesOperator,
    StartServicesOperator,
    StopOperator,
)
from neuroca_backup.operators.restore_step import APPROVE, CHECKS_GROUP, SERVICES, SOURCE_GROUP
from neuroca_backup.settings import Role, default_path, load

DOC = """
### Restores one source, or all of a backup set

Trigger it with the form. Without changes it restores the newest verified backup into a throwaway
server, compares it with what was backed up, and removes the server again: a rehearsal that
touches nothing. With **Dry run** it ends before that: the log of `approve` has the plan.

* **plan** checks the form and chooses the backup, or every backup of the set. Each of the groups
  **checks** and **source** then runs once for each of them, side by side.
* **checks** is the list to go through before a restore, a task a line: room, the backup read back,
  versions, the state of the target. Nothing is touched.
* **approve** asks a second person where data is replaced in place, and shows what will be done.
  Who triggered the run can reject it, not approve it. Answer it under *Required Actions*.
* **await_retrieval** asks for what lies only in an archive such as Glacier, and waits without
  holding a worker; mostly there is nothing to wait for. **fetch** checks every byte; a damaged
  copy falls back to another store. **stop** stops the services that use the data, in place alone.
  **save** backs up what would be overwritten. **load** works beside what is there where it can,
  **compare** counts and checks, and only then **publish** puts the copy in its place. **examine**
  asks it there whether it works, and **agree** whether what was restored together fits together,
  by `agreement` of backup.yaml.
* **record** notes the restore whatever became of it; it is red if the restore failed.
  **start_services** starts again what ran before, whatever happened.
* `in_place` replaces the data of running sources. It needs `confirm`: the source's name, or the
  set's id.

**A task is red.** The last lines of its log say what is wrong and what to do. Of that source
nothing was published unless its `publish` is green; the other sources of a set are not concerned.
Once it is mended, clear the red source's tasks from `fetch` on, or trigger a new run.
"""

settings = load(default_path())
sources = list(settings.sources)
components = list(dict.fromkeys(source.component.value for source in settings.sources.values()))

PARAMS = {
    "source": Param(
        sources[0],
        type="string",
        examples=sources,
        pattern=rf"^({'|'.join(sources)})(__[a-z0-9_]+)?$",
        title="Source",
        description="What to restore: a source of backup.yaml, or a part of one by the name that "
        "its backups have, such as models__llama_3. With a backup set: any source of the set's "
        "component.",
    ),
    "component": Param(
        ONE_SOURCE,
        type="string",
        enum=[ONE_SOURCE, *components],
        values_display={ONE_SOURCE: "No: one source alone"},
        title="A whole component",
        description="Restore the newest complete backup set of this component instead of one "
        "source; Source then does not count.",
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
    "until": Param(
        None,
        type=["null", "string"],
        format="date-time",
        title="Until",
        description="Bring back the state of exactly this moment, between a full backup and a "
        "later incremental one. Finds the backup itself; not together with Before.",
    ),
    "as_of": Param(
        None,
        type=["null", "string"],
        format="date-time",
        title="Stores as of",
        description="Read versioned buckets as they were at this time: what somebody has "
        "overwritten or deleted since is there again. Empty: as they are.",
    ),
    "only": Param(
        None,
        type=["null", "array"],
        items={"type": "string"},
        title="Only these parts",
        description="One a line, in the engine's own words, such as a database, a collection or a "
        "key pattern. Empty: everything.",
    ),
    "set_id": Param(
        None,
        type=["null", "string"],
        title="A whole backup set",
        description="Restore every source of this set instead of one source: latest, or an id "
        "such as 20261123T020000Z-1f0c9a3e. Each goes into a throwaway server of its own, or in "
        "place.",
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
    "retrieval": Param(
        "standard",
        type="string",
        enum=list(RETRIEVALS),
        values_display={
            "expedited": "Expedited: 1 to 5 minutes, not from Deep Archive",
            "standard": "Standard: 3 to 5 hours, 12 from Deep Archive",
            "bulk": "Bulk: 5 to 12 hours, 48 from Deep Archive",
            "none": "None: end there",
        },
        title="Retrieval",
        description="How urgently members are asked for that lie only in an archive. It is charged "
        "for; where another store can be read it is not needed, and not done.",
    ),
    "target": Param(
        "sandbox",
        type="string",
        enum=list(TARGETS),
        values_display={
            "sandbox": "A throwaway server or directory",
            "connection": "Another server",
            "directory": "A directory, for files",
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
    "target_directory": Param(
        None,
        type=["null", "string"],
        title="Target directory",
        description="For files: the absolute path of a directory on the worker, absent or empty.",
    ),
    "confirm": Param(
        None,
        type=["null", "string"],
        title="Confirm",
        description="For an in-place restore only: type the name of the source, or the id of the "
        "set.",
    ),
    "save_first": Param(
        default=True,
        type="boolean",
        title="Save what is overwritten",
        description="Back the running source up before an in-place restore, where its engine "
        "keeps nothing itself. Switch it off only if the source is dead or not worth saving.",
    ),
    "allow_older": Param(
        default=False,
        type="boolean",
        title="Allow an older backup",
        description="Where no store has the chosen backup whole, restore the newest older one that "
        "is verified and good. The log and the record say so. Without it the restore ends there "
        "and names that backup.",
    ),
    "read_back": Param(
        default=True,
        type="boolean",
        title="Read the backup back first",
        description="Check all stored bytes before anything else. Switch it off to save the time "
        "of reading them twice: they are checked again when they are fetched.",
    ),
    "dry_run": Param(
        default=False,
        type="boolean",
        title="Dry run",
        description="Only plan and check, say how long it will take, and end there.",
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
    description="Restore a source or a whole set, and compare it with what was backed up",
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
        # The spool and the sandbox are on one machine.
        **(queue_of(settings.pipeline) | queue_for(Role.RESTORER, settings.access)),
    },
) as dag:

    @task_group(group_id=CHECKS_GROUP, tooltip="What is looked at before one source's restore")
    def check(order: Any) -> None:
        """Add the checks of one source; `order` is what `plan` decided for it."""
        chain(
            SandboxOperator(task_id="sandbox", order=order, forget_after=STALE_SANDBOX),
            SpaceOperator(task_id="space", order=order),
            IntegrityOperator(task_id="integrity", order=order),
            VersionsOperator(task_id="versions", order=order),
            StateOperator(task_id="state", order=order),
        )

    start_services = StartServicesOperator(task_id="start_services").as_teardown(
        on_failure_fail_dagrun=True
    )

    agree = AgreeOperator(task_id="agree", trigger_rule="all_done")

    @task_group(group_id=SOURCE_GROUP, tooltip="The steps of one source's restore")
    def restore_source(order: Any) -> None:
        """Add the tasks of one source; `order` is what `plan` decided for it."""
        record = RecordOperator(task_id="record", order=order, trigger_rule="all_done")
        clean_up = CleanUpOperator(task_id="clean_up", order=order)
        chain(
            AwaitRetrievalSensor(task_id="await_retrieval", order=order),
            FetchOperator(task_id="fetch", order=order),
            StopOperator(task_id="stop", order=order),
            SaveOperator(task_id="save", order=order),
            LoadOperator(task_id="load", order=order),
            CompareOperator(task_id="compare", order=order),
            PublishOperator(task_id="publish", order=order),
            ExamineOperator(task_id="examine", order=order),
            # Beside one another: Airflow would not let a record decide how the run ended that has
            # a teardown behind it, and each is done whatever becomes of the others.
            [record, clean_up.as_teardown(on_failure_fail_dagrun=True), start_services, agree],
        )

    orders = PlanOperator(task_id="plan").output
    # What one source has not passed must not keep the others from being restored.
    approve = ApproveOperator(
        task_id=APPROVE,
        orders=orders,
        approvals=settings.restore.approvals,
        response_timeout=settings.restore.response_timeout,
        trigger_rule="all_done_min_one_success",
    )
    chain(
        check.expand(order=orders),
        approve,
        ServicesOperator(task_id=SERVICES, orders=orders),
        restore_source.expand(order=orders),
    )
