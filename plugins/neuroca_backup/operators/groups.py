"""The task group of one source: the tasks of a backup and their order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import TaskGroup, task_group

from neuroca_backup.operators.backup import (
    CompressOperator,
    DumpOperator,
    EncryptOperator,
    ReplicateOperator,
    SourceOperator,
    StreamOperator,
    UploadOperator,
    VerifyOperator,
)
from neuroca_backup.operators.backup_run import PART_GROUP, DiscoverOperator, SourceTasks
from neuroca_backup.settings import Role

if TYPE_CHECKING:
    from neuroca_backup.settings import AccessSettings, PipelineSettings, Settings, SourceSettings

_STAGED: tuple[tuple[str, type[SourceOperator]], ...] = (
    ("dump", DumpOperator),
    ("compress", CompressOperator),
    ("encrypt", EncryptOperator),
    ("upload", UploadOperator),
)
_STREAMED: tuple[tuple[str, type[SourceOperator]], ...] = (("stream", StreamOperator),)
_STORED: tuple[tuple[str, type[SourceOperator]], ...] = (
    ("replicate", ReplicateOperator),
    ("verify", VerifyOperator),
)

_ROLES = {"replicate": Role.REPLICATOR, "verify": Role.VERIFIER}


def queue_of(pipeline: PipelineSettings) -> dict[str, Any]:
    """Return the operator arguments that pin a task to the queue of the spool, if there is one."""
    return {} if pipeline.queue is None else {"queue": pipeline.queue}


def queue_for(role: Role, access: AccessSettings) -> dict[str, Any]:
    """Return the operator arguments that send a task to the workers of `role`, if it has some."""
    return {"queue": access.queues[role]} if role in access.queues else {}


def source_group(name: str, source: SourceSettings, settings: Settings) -> SourceTasks:
    """Add the group `name`: dump, compress, encrypt, upload, replicate, verify.

    In streamed mode one task `stream` stands for the first four. Each task runs on the workers of
    its role where `access.queues` names some. A source that is many things has
    a task `discover`, and a group of these tasks for each part it finds. Only tasks that need the
    spool, or files of this machine, are pinned to its queue.
    """
    pipeline = settings.pipeline
    first = (_STAGED if pipeline.mode == "staged" else _STREAMED)[0][0]
    way = f"through {source.connection}" if source.connection else "on this machine"
    divided = _divides(source)
    with TaskGroup(group_id=name, tooltip=f"{source.engine} {way}"):
        if not divided:
            _stages(name, source, settings)
            return SourceTasks(source=name, first=first)
        queue = queue_of(pipeline) | queue_for(Role.WRITER, settings.access)
        found = DiscoverOperator(task_id="discover", source=name, **queue)

        @task_group(group_id=PART_GROUP, tooltip="The stages of one part")
        def of_part(part: Any) -> None:
            """Add the tasks of one part; `part` is what `discover` says of it."""
            _stages(name, source, settings, part=part)

        of_part.expand(part=found.output)
    return SourceTasks(source=name, first=first, divided=True)


def _stages(name: str, source: SourceSettings, settings: Settings, *, part: Any = None) -> None:
    pipeline = settings.pipeline
    staged = pipeline.mode == "staged"
    ticket: Any = None
    for task_id, operator in (*(_STAGED if staged else _STREAMED), *_STORED):
        first = ticket is None
        stored = (task_id, operator) in _STORED
        of_files = first and source.connection is None
        queue = queue_of(pipeline) if of_files or (staged and not stored) else {}
        task = operator(
            task_id=task_id,
            source=name,
            component=source.component,
            ticket=ticket,
            part=part,
            **(queue | queue_for(_ROLES.get(task_id, Role.WRITER), settings.access)),
            **({} if part is None else _one_of_many(pipeline, first=first)),
        )
        ticket = task.output


def _one_of_many(pipeline: PipelineSettings, *, first: bool) -> dict[str, Any]:
    """Return the operator arguments of a task that runs once for each part.

    Airflow would take the first stage of every part before the second of any, and the spool would
    hold all of them at once. So later stages go first, and only some parts are dumped at a time.
    """
    limit = {"max_active_tis_per_dagrun": pipeline.workers} if first else {}
    return {
        "map_index_template": "{{ task.part['name'] }}",
        "weight_rule": "upstream",
        **limit,
    }


def _divides(source: SourceSettings) -> bool:
    """Return whether the source is many things; only files of this machine are.

    Engines of files cost a DAG file nothing to import; those of servers would.
    """
    from neuroca_backup import engines  # noqa: PLC0415 - where all are servers it costs nothing

    return source.connection is None and isinstance(engines.named(source.engine), engines.Dividing)
