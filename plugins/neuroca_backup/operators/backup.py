"""The stages of a backup as tasks. Each operator only places one service call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from airflow.sdk.observability import stats
from typing_extensions import override

from neuroca_backup.errors import BackupError
from neuroca_backup.hooks.neuroca import NeurocaHook, translated
from neuroca_backup.model.identity import BackupRef, Component, is_source_name, set_id
from neuroca_backup.model.tickets import Ticket
from neuroca_backup.operators.backup_request import BackupRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context
    from airflow.sdk.definitions.xcom_arg import XComArg

    from neuroca_backup.runtime import Runtime


def run_set_id(context: Context) -> str:
    """Return the id of the run's backup set: the same in every task and on every retry of it."""
    run = context["dag_run"]
    return set_id(at=run.run_after, run=f"{run.dag_id}/{run.run_id}")


def backup_asset(component: Component, source: str) -> Asset:
    """Return the asset that is updated whenever a backup of `source` has been verified."""
    # Without "x-" Airflow looks for the scheme in every provider: 0.4 s more for every task.
    return Asset(
        name=f"backup of {component}/{source}", uri=f"x-neuroca-backup://{component}/{source}"
    )


class SourceOperator(BaseOperator):
    """A task about one source's backup in this run; subclasses say in `run` which call it is.

    Args:
        source: The source's name in backup.yaml.
        component: The component it belongs to.
        ticket: The previous task's output (ids and sizes only); None for the first task.
    """

    template_fields: Sequence[str] = ("ticket",)
    ui_fgcolor = "#ffffff"

    def __init__(
        self,
        *,
        source: str,
        component: Component | str,
        ticket: XComArg | dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if not is_source_name(source):
            raise ValueError(f"source: {source!r} is not a source's name")
        self.source = source
        self.component = Component(component)
        self.ticket = ticket
        super().__init__(**{"doc_md": type(self).__doc__, **kwargs})

    def execute(self, context: Context) -> dict[str, Any]:
        """Call the service, measure it, and return what the next task needs."""
        tags = {"component": str(self.component), "source": self.source, "stage": self.stage}
        with translated(), stats.timer("neuroca_backup.stage", tags=tags):
            ref = BackupRef.of(run_set_id(context), self.component, self.source)
            result = self.run(NeurocaHook().runtime, ref, context)
        if "size" in result:
            stats.gauge("neuroca_backup.bytes", result["size"], tags=tags)
        return result

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


class RecordSetOperator(BaseOperator):
    """Record in every store which backups of this run belong together.

    It runs whatever became of the sources, and fails unless every one of them has a verified
    backup: its success never makes a failed run green.

    Args:
        component: The component that was backed up.
        sources: Its sources; the task `<source>.verify` of each is asked for its result.
    """

    ui_color = "#1f4e79"
    ui_fgcolor = "#ffffff"

    def __init__(
        self, *, component: Component | str, sources: Sequence[str], **kwargs: Any
    ) -> None:
        self.component = Component(component)
        self.sources = tuple(sources)
        super().__init__(**{"doc_md": type(self).__doc__, **kwargs})

    def execute(self, context: Context) -> dict[str, Any]:
        """Record the set; return its id and how far apart its backups are, in seconds."""
        with translated():
            recorded = (
                NeurocaHook()
                .runtime.sets()
                .record(run_set_id(context), self.component, self.sources)
            )
        unverified = [
            source
            for source in self.sources
            if not context["ti"].xcom_pull(task_ids=f"{source}.verify")
        ]
        if unverified:
            # A sound copy makes a set complete; a damaged one beside it must stay red.
            raise AirflowFailException(
                f"The set {recorded.set_id} is recorded, but the checks of {', '.join(unverified)} "
                "failed: the log of each verify says why."
            )
        return {
            "set_id": recorded.set_id,
            "component": str(recorded.component),
            "skew_seconds": recorded.skew_seconds,
        }


class ClearSpoolOperator(BaseOperator):
    """Leave nothing of this run in the spool, whatever became of the run.

    Args:
        component: The component that the run backs up.
        sources: Its sources' names.
    """

    ui_color = "#5f6368"
    ui_fgcolor = "#ffffff"

    def __init__(
        self, *, component: Component | str, sources: Sequence[str], **kwargs: Any
    ) -> None:
        if not sources:
            raise ValueError("sources: name at least one source")
        self.component = Component(component)
        self.sources = tuple(sources)
        super().__init__(**{"doc_md": type(self).__doc__, **kwargs})

    def execute(self, context: Context) -> None:
        """Clear the spool of every source, of the others too where one fails."""
        failures: list[BackupError] = []
        with translated():
            backups = NeurocaHook().runtime.backups
            for source in self.sources:
                try:
                    backups.clear(BackupRef.of(run_set_id(context), self.component, source))
                except BackupError as error:
                    self.log.error("The spool still holds %s: %s", source, error)  # noqa: TRY400 - raised below
                    failures.append(error)
            if failures:
                raise failures[0]
