"""The stages of a backup as tasks. Each operator only places one service call.

What concerns a whole run, such as its set, is in `operators/backup_run.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowSkipException
from airflow.sdk.observability import stats
from typing_extensions import override

from neuroca_backup.hooks.neuroca import NeurocaHook, translated
from neuroca_backup.model.identity import BackupRef, Component, is_source_name, set_id
from neuroca_backup.model.tickets import Ticket
from neuroca_backup.operators.assets import backup_asset
from neuroca_backup.operators.backup_request import BackupRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context
    from airflow.sdk.definitions._internal.expandinput import MappedArgument
    from airflow.sdk.definitions.xcom_arg import XComArg

    from neuroca_backup.runtime import Runtime


def run_set_id(context: Context) -> str:
    """Return the id of the run's backup set: the same in every task and on every retry of it."""
    run = context["dag_run"]
    return set_id(at=run.run_after, run=f"{run.dag_id}/{run.run_id}")


class SourceOperator(BaseOperator):
    """A task about one source's backup in this run; subclasses say in `run` which call it is.

    Where the first task finds that the source has not changed, the others are skipped.

    Args:
        source: The source's name in backup.yaml.
        component: The component it belongs to.
        ticket: The previous task's output (ids and sizes only); None for the first task.
        part: The part of the source that this is about, one of those that `discover` found: its
            `source` (the name in ids) and `name`. None for a source that is one thing.
    """

    template_fields: Sequence[str] = ("ticket", "part")
    ui_fgcolor = "#ffffff"

    def __init__(
        self,
        *,
        source: str,
        component: Component | str,
        ticket: XComArg | dict[str, Any] | None = None,
        part: MappedArgument | dict[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        if not is_source_name(source):
            raise ValueError(f"source: {source!r} is not a source's name")
        self.source = source
        self.component = Component(component)
        self.ticket = ticket
        self.part = part
        super().__init__(**{"doc_md": type(self).__doc__, **kwargs})

    def execute(self, context: Context) -> dict[str, Any]:
        """Call the service, measure it, and return what the next task needs."""
        if isinstance(self.ticket, dict) and self.received().unchanged:
            raise AirflowSkipException(
                f"{self.subject} is unchanged: {self.received().backup_id} stands for this backup"
            )
        tags = {"component": str(self.component), "source": self.subject, "stage": self.stage}
        with translated(), stats.timer("neuroca_backup.stage", tags=tags):
            ref = BackupRef.of(run_set_id(context), self.component, self.subject)
            result = self.run(NeurocaHook().runtime, ref, context)
        if "size" in result:
            stats.gauge("neuroca_backup.bytes", result["size"], tags=tags)
        return result

    @property
    def subject(self) -> str:
        """What is backed up: the source, or the one part of it."""
        return self.part["source"] if isinstance(self.part, dict) else self.source

    @property
    def stage(self) -> str:
        """What the task does, e.g. `dump`, as metrics and messages call it."""
        return self.task_id.rpartition(".")[2]

    def run(self, runtime: Runtime, ref: BackupRef, context: Context) -> dict[str, Any]:
        """Do this task's one call."""
        raise NotImplementedError

    def received(self) -> Ticket:
        """Return the previous task's ticket."""
        if not isinstance(self.ticket, dict):
            raise AirflowException(
                f"{self.task_id} got no ticket from the task before it. Clear the source's tasks "
                "from the first one on."
            )
        return Ticket(**self.ticket)


class DumpOperator(SourceOperator):
    """Dump the source into the spool."""

    ui_color = "#1f4e79"

    @override
    def run(self, runtime: Runtime, ref: BackupRef, context: Context) -> dict[str, Any]:
        request = BackupRequest.parse(context["params"])
        return runtime.backups.dump(ref, backup_type=request.type).to_json()


class CompressOperator(SourceOperator):
    """Compress the dump in the spool."""

    ui_color = "#2e6b9e"

    @override
    def run(self, runtime: Runtime, ref: BackupRef, context: Context) -> dict[str, Any]:
        return runtime.backups.compress(self.received()).to_json()


class EncryptOperator(SourceOperator):
    """Seal the compressed members for every recipient."""

    ui_color = "#5b3f8c"

    @override
    def run(self, runtime: Runtime, ref: BackupRef, context: Context) -> dict[str, Any]:
        return runtime.backups.encrypt(self.received()).to_json()


class UploadOperator(SourceOperator):
    """Copy the sealed backup to the primary store, its manifest last."""

    ui_color = "#8a5a00"

    @override
    def run(self, runtime: Runtime, ref: BackupRef, context: Context) -> dict[str, Any]:
        return runtime.backups.upload(self.received()).to_json()


class StreamOperator(SourceOperator):
    """Dump, compress, seal and upload in one pass, without a spool."""

    ui_color = "#1f4e79"

    @override
    def run(self, runtime: Runtime, ref: BackupRef, context: Context) -> dict[str, Any]:
        request = BackupRequest.parse(context["params"])
        return runtime.backups.stream(ref, backup_type=request.type).to_json()


class ReplicateOperator(SourceOperator):
    """Copy the backup from the primary to every other store."""

    ui_color = "#a3461c"

    @override
    def run(self, runtime: Runtime, ref: BackupRef, context: Context) -> dict[str, Any]:
        return runtime.backups.replicate(ref).to_json()


class VerifyOperator(SourceOperator):
    """Read the backup back from every store; then announce it as an asset event.

    The event's extra has `backup_id`, `stored_bytes`, `members` and `levels` by store, so a DAG
    scheduled on the asset can act on exactly this backup.
    """

    ui_color = "#2d6a31"

    def __init__(self, *, source: str, component: Component | str, **kwargs: Any) -> None:
        self.asset = backup_asset(Component(component), source)
        super().__init__(source=source, component=component, outlets=[self.asset], **kwargs)

    @override
    def run(self, runtime: Runtime, ref: BackupRef, context: Context) -> dict[str, Any]:
        ticket = self.received()
        verifications = runtime.verifier.verify(ref)
        result: dict[str, Any] = {
            "backup_id": ref.backup_id,
            "stored_bytes": ticket.size,
            "members": ticket.members,
            "levels": {name: found.level.name for name, found in verifications.items()},
        }
        context["outlet_events"][self.asset].extra.update(result)
        return result
