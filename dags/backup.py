"""One DAG for each component that has sources in backup.yaml: `backup_<component>`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, AssetAny, AssetOrTimeSchedule, CronTriggerTimetable, Param

from neuroca_backup.model.identity import Component
from neuroca_backup.notifications.failure import FailureNotice
from neuroca_backup.operators.assets import changes_of
from neuroca_backup.operators.backup_request import BACKUP_TYPES
from neuroca_backup.operators.backup_run import ClearSpoolOperator, RecordSetOperator
from neuroca_backup.operators.groups import queue_for, queue_of, source_group
from neuroca_backup.settings import Role, Settings, default_path, load

DOC = """
### Backs up {component}

Sources: {sources}. Each is dumped, compressed, encrypted, uploaded to the primary store,
replicated to the others, and read back from every one of them. The task `set` then records which
backups belong together, so that they can be restored together. **Only a green `verify` means that
there is a backup.** Schedule, sources and stores come from `backup.yaml`.

**A task is red.** The last lines of its log say what is wrong and what to do. Then clear the red
task, downstream included: finished work is not repeated, and the backup keeps its id. Where the
spool has already been emptied, clear the source's tasks from the first one on.

**`clear_spool` is red.** Data in clear may still lie in the spool: clear that task at once.

**`set` is red, and nothing else.** Its log says which store it could not write to. The backups
are there; clear that task.

**Killed half way.** Nothing half-done counts as a backup; trigger a new run, or clear this one.
"""

PARAMS = {
    "backup_type": Param(
        "auto",
        type="string",
        enum=list(BACKUP_TYPES),
        values_display={
            "auto": "Automatic",
            "full": "Full",
            "incremental": "Incremental",
        },
        title="Backup type",
        description="Automatic continues the newest verified backup, and takes a full one where "
        "that is not possible, or no longer wanted (full_every). Incremental fails where it is not "
        "possible. Sources whose engine knows full backups only get one whatever is chosen. A "
        "source that has not changed gets none, unless you choose Full.",
    ),
}


def backup_dag(component: Component, settings: Settings) -> DAG:
    """Return the DAG of `component`: a task group a source, and one teardown for the spool."""
    sources = settings.sources_of(component)
    pipeline = settings.pipeline
    with DAG(
        dag_id=f"backup_{component}",
        description=f"Dump, encrypt, replicate and verify {', '.join(sources)}",
        schedule=schedule_of(component, settings),
        catchup=False,
        max_active_runs=1,
        tags=["neuroca", "backup", component.value],
        params=PARAMS,
        doc_md=DOC.format(component=component, sources=", ".join(sources)),
        on_failure_callback=FailureNotice(settings.notifications),
        default_args={
            "owner": "neuroca",
            "retries": 2,
            "retry_delay": timedelta(minutes=1),
            "retry_exponential_backoff": 2,
            "max_retry_delay": timedelta(minutes=15),
            # A stage that takes as long as the RPO has missed it.
            "execution_timeout": settings.objectives.rpo.of(component),
        },
    ) as dag:
        groups = [source_group(name, source, settings) for name, source in sources.items()]
        verifies = [dag.get_task(group.stage("verify")) for group in groups]
        verifies >> RecordSetOperator(
            task_id="set",
            component=component,
            sources=groups,
            trigger_rule="all_done",
            **queue_for(Role.VERIFIER, settings.access),
        )
        if pipeline.mode == "staged":
            clear = ClearSpoolOperator(
                task_id="clear_spool",
                component=component,
                sources=tuple(sources),
                **(queue_of(pipeline) | queue_for(Role.WRITER, settings.access)),
            )
            # After the uploads nothing needs the spool. It must not follow `verify`: as the only
            # leaf its own success would make a failed run green.
            uploads = [dag.get_task(group.stage("upload")) for group in groups]
            uploads >> clear.as_teardown(on_failure_fail_dagrun=True)
    return dag


def schedule_of(component: Component, settings: Settings) -> Any:
    """Return when `component` is backed up: at the times of its cron, and when it changes."""
    cron = settings.schedule.of(component)
    times = CronTriggerTimetable(cron, timezone="UTC") if cron else None
    changes = changes_of(component, settings)
    if not changes:
        return times
    anyone = AssetAny(*changes)
    return anyone if times is None else AssetOrTimeSchedule(timetable=times, assets=anyone)


_settings = load(default_path())
for _component in Component:
    if _settings.sources_of(_component):
        _dag = backup_dag(_component, _settings)
        globals()[_dag.dag_id] = _dag
