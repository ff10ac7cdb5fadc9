"""The task group of one source: the tasks of a backup and their order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import TaskGroup

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

if TYPE_CHECKING:
    from neuroca_backup.settings import PipelineSettings, SourceSettings

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


def queue_of(pipeline: PipelineSettings) -> dict[str, Any]:
    """Return the operator arguments that pin a task to the queue of the spool, if there is one."""
    return {} if pipeline.queue is None else {"queue": pipeline.queue}


def source_group(name: str, source: SourceSettings, pipeline: PipelineSettings) -> TaskGroup:
    """Return the group `name`: dump, compress, encrypt, upload, replicate, verify.

    In streamed mode one task `stream` stands for the first four. Only tasks that need the spool
    are pinned to its queue.
    """
    staged = pipeline.mode == "staged"
    ticket: Any = None
    way = f"through {source.connection}" if source.connection else "on this machine"
    with TaskGroup(group_id=name, tooltip=f"{source.engine} {way}") as group:
        for task_id, operator in (*(_STAGED if staged else _STREAMED), *_STORED):
            spooled = staged and (task_id, operator) not in _STORED
            task = operator(
                task_id=task_id,
                source=name,
                component=source.component,
                ticket=ticket,
                **(queue_of(pipeline) if spooled else {}),
            )
            ticket = task.output
    return group
