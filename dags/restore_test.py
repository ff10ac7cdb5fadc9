"""The DAG `restore_test`: the newest backups restored into a sandbox, looked at, and recorded."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, CronTriggerTimetable, Param, chain, task_group

from neuroca_backup.model.identity import Component
from neuroca_backup.notifications.failure import FailureNotice
from neuroca_backup.operators.groups import queue_for, queue_of
from neuroca_backup.operators.restore_step import SOURCE_GROUP
from neuroca_backup.operators.restore_test import (
    CompareTestOperator,
    ExamineTestOperator,
    FetchTestOperator,
    KeepOperator,
    LoadTestOperator,
    PlanTestOperator,
    PreflightOperator,
    PublishTestOperator,
    RecordTestOperator,
    SampleOperator,
    SanitiseOperator,
    StartSandboxOperator,
    TearDownOperator,
)
from neuroca_backup.operators.restore_test_request import SANDBOXES
from neuroca_backup.settings import Role, default_path, load

DOC = """
### Restores the newest backups, to see that they can be restored

Without changes in the form it takes the newest complete set of every component. For each source a
throwaway server is started, the backup is restored into it and compared with what was backed up,
asked whether it works, read, sanitised by the rules of backup.yaml, and all of it is removed again.

* **plan** checks the form and chooses the backups. The group **source** runs once for each.
* **sanitise** takes the personal data out and proves that they are gone. Nobody is shown the
  sandbox before. **keep** waits for as many hours as the form says; mark it as success to end it
  earlier.
* **tear_down** leaves no process, no file and no port, whatever became of the other tasks.
* **record** writes the report to every store (`restore-tests/`) and the catalog. It is red if any
  source did not pass.

**A task is red.** The last lines of its log say what is wrong and what to do: the backup of that
source could not be restored as it should, and that is what this test is for. Once it is mended,
trigger a new run; a source's tasks can also be cleared from `sandbox` on. If `tear_down` is red,
look at what its log names: it may be a copy of production data.
"""

settings = load(default_path())
sources = list(settings.sources)

PARAMS = {
    "components": Param(
        None,
        type=["null", "array"],
        items={"type": "string", "enum": [one.value for one in Component]},
        title="Components",
        description="One a line. Empty: every component that has sources.",
    ),
    "sources": Param(
        None,
        type=["null", "array"],
        items={"type": "string"},
        title="Sources",
        description=f"Instead of components, one a line: {', '.join(sources)}.",
    ),
    "backup": Param(
        None,
        type=["null", "string"],
        title="One backup",
        description="Instead of the newest ones exactly this backup: its id, or its address in a "
        "store (s3://..., file:///...).",
    ),
    "sandbox": Param(
        settings.restore_test.sandbox,
        type="string",
        enum=list(SANDBOXES),
        values_display={
            "process": "Throwaway servers on the worker",
            "connection": "The isolated servers of backup.yaml",
        },
        title="Sandbox",
        description="Where to restore to. A server that is backed up is refused.",
    ),
    "sanitise": Param(
        default=True,
        type="boolean",
        title="Sanitise",
        description="Take personal data out of the copy, by the rules of backup.yaml.",
    ),
    "keep": Param(
        0,
        type="number",
        minimum=0,
        maximum=72,
        title="Keep for so many hours",
        description="Leave the sanitised sandbox so long to look at it. Restricted data without "
        "rules are refused.",
    ),
    "dry_run": Param(
        default=False,
        type="boolean",
        title="Dry run",
        description="Only choose the backups; the log of `plan` names them.",
    ),
}

with DAG(
    dag_id="restore_test",
    description="Restore the newest backups into a sandbox, compare, sanitise, and record",
    schedule=CronTriggerTimetable(settings.restore_test.schedule, timezone="UTC"),
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

    @task_group(group_id=SOURCE_GROUP, tooltip="The test of one source")
    def test_source(order: Any) -> None:
        """Add the tasks of one source; `order` is what `plan` decided for it."""
        # One sandbox at a time of each kind would be enough; two keep both cores of a worker busy.
        together = {"max_active_tis_per_dagrun": 2}
        sandbox = StartSandboxOperator(task_id="sandbox", order=order, **together)
        # A setup, so that it is there again whichever task is cleared. The teardown is not tied to
        # it: it has to run also where the setup was killed half way.
        sandbox.is_setup = True
        tear_down = TearDownOperator(task_id="tear_down", order=order)
        chain(
            sandbox,
            PreflightOperator(task_id="preflight", order=order),
            FetchTestOperator(task_id="fetch", order=order, **together),
            LoadTestOperator(task_id="load", order=order, **together),
            CompareTestOperator(task_id="compare", order=order),
            PublishTestOperator(task_id="publish", order=order),
            ExamineTestOperator(task_id="examine", order=order),
            SampleOperator(task_id="sample", order=order),
            SanitiseOperator(task_id="sanitise", order=order, retries=0),
            KeepOperator(task_id="keep", order=order),
            tear_down.as_teardown(on_failure_fail_dagrun=True),
        )

    orders = PlanTestOperator(task_id="plan").output
    record = RecordTestOperator(task_id="record", orders=orders, trigger_rule="all_done")
    group = test_source.expand(order=orders)
    # A group's own arrow leaves its teardown out, and the record says whether that was done.
    group >> record
    dag.get_task(f"{SOURCE_GROUP}.tear_down") >> record
