"""The tasks of a retention run. Each operator only places one service call."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from neuroca_backup.errors import ConfigurationError
from neuroca_backup.hooks.neuroca import NeurocaHook, run_actor, translated
from neuroca_backup.model.identity import Component

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context
    from airflow.sdk.definitions._internal.expandinput import MappedArgument


@dataclass(frozen=True, slots=True)
class RetentionRequest:
    """The fields of the form; the DAG's params have the same names."""

    dry_run: bool = False
    confirm: bool = False

    @classmethod
    def parse(cls, params: Mapping[str, Any]) -> RetentionRequest:
        """Return the request that `params` describe; none of them is a scheduled run's.

        Raises:
            ConfigurationError: A field is unknown, or is neither true nor false.
        """
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(params) - set(known))
        if unknown:
            raise ConfigurationError(
                f"The retention form has no field {', '.join(map(repr, unknown))}",
                remedy=f"Its fields are: {', '.join(known)}.",
            )
        for name, value in params.items():
            if not isinstance(value, bool):
                raise ConfigurationError(
                    f"{name}: {value!r} is neither true nor false",
                    remedy="Write true or false, without quotes.",
                    value=value,
                )
        return cls(**params)


class RetentionOperator(BaseOperator):
    """A task of a retention run; subclasses say what it does."""

    ui_color = "#7a2e2e"
    ui_fgcolor = "#ffffff"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"doc_md": type(self).__doc__, **kwargs})


def _actor(context: Context) -> str:
    return run_actor(context["dag_run"])


class PlanRetentionOperator(RetentionOperator):
    """Log what becomes of every backup and why; return the sources that need a hand.

    Those are the sources of which something expires, is deleted or taken back, and those of which
    something is unknown. A dry run returns none.
    """

    def execute(self, context: Context) -> list[dict[str, str]]:
        """Return `component` and `source` of every source that `apply` has to look at."""
        with translated():
            request = RetentionRequest.parse(dict(context["params"]))
            service = NeurocaHook().runtime.retention
            plans = [service.plan(*one) for one in service.sources()]
        for plan in plans:
            for one in plan.decisions:
                self.log.info("%s: %s: %s", one.record.backup_id, one.fate, one.reason)
            for sentence in plan.unknown:
                self.log.warning("%s/%s: not known: %s", plan.component, plan.source, sentence)
            if plan.excess:
                self.log.warning("%s/%s: %s", plan.component, plan.source, plan.excess)
        if request.dry_run:
            self.log.info("A dry run: nothing is touched")
            return []
        return [
            {"component": one.component.value, "source": one.source}
            for one in plans
            if one.changes or one.unknown
        ]


class ApplyRetentionOperator(RetentionOperator):
    """Mark what has expired of one source, delete what may go, take back what must stay.

    The source is looked at anew. Where something is unknown, or too much would expire at once,
    nothing is done and the task fails.

    Args:
        order: `component` and `source`, one of those that `plan` returned.
    """

    template_fields: Sequence[str] = ("order",)

    def __init__(self, *, order: MappedArgument | dict[str, str], **kwargs: Any) -> None:
        self.order = order
        super().__init__(**kwargs)

    def execute(self, context: Context) -> dict[str, Any]:
        """Return how many backups were marked, deleted and taken back, and the bytes freed."""
        assert isinstance(self.order, dict)  # noqa: S101 - Airflow has rendered it by now
        with translated():
            request = RetentionRequest.parse(dict(context["params"]))
            done = NeurocaHook().runtime.retention.apply(
                Component(self.order["component"]),
                self.order["source"],
                confirmed=request.confirm,
                actor=_actor(context),
            )
        return {
            "source": done.source,
            "expired": len(done.expired),
            "deleted": len(done.erased),
            "taken_back": len(done.taken_back),
            "spared": len(done.spared),
            "bytes": done.size,
        }


class SweepOperator(RetentionOperator):
    """Remove what never became a backup, and sets of which no backup is left.

    Objects that are not of this program are named in the log and left alone.
    """

    def execute(self, context: Context) -> dict[str, Any]:
        """Return how much was removed; of a dry run, nothing."""
        with translated():
            if RetentionRequest.parse(dict(context["params"])).dry_run:
                return {"objects": 0, "bytes": 0, "uploads": 0, "sets": 0, "strangers": 0}
            swept = NeurocaHook().runtime.retention.sweep(actor=_actor(context))
        for stranger in swept.strangers:
            self.log.warning("Not of this program, left alone: %s", stranger)
        for sentence in swept.skipped:
            self.log.warning("Not swept: %s", sentence)
        return {
            "objects": swept.objects,
            "bytes": swept.size,
            "uploads": swept.uploads,
            "sets": swept.sets,
            "strangers": swept.strange,
        }


class RecordRetentionOperator(RetentionOperator):
    """Log what the run did, note it in the audit trail, and fail if any part of it failed.

    It runs whatever became of the others: its success never makes a failed run green.
    """

    def execute(self, context: Context) -> dict[str, Any]:
        """Return the sums over all sources."""
        ti = context["ti"]
        planned = ti.xcom_pull(task_ids="plan")
        swept = ti.xcom_pull(task_ids="sweep")
        indexes = list(range(len(planned or [])))
        pulled = ti.xcom_pull(task_ids="apply", map_indexes=indexes) if indexes else []
        done = [one for one in pulled if one]
        names = ("expired", "deleted", "taken_back", "spared", "bytes")
        sums: dict[str, Any] = {name: sum(one[name] for one in done) for name in names}
        failed = [
            name
            for name, bad in (
                ("plan", planned is None),
                ("apply", len(done) < len(indexes)),
                ("sweep", swept is None),
            )
            if bad
        ]
        report = {**sums, "swept": swept, "failed": failed}
        self.log.info("Retention: %s", report)
        with translated():
            synced = NeurocaHook().runtime.retention.note_run(actor=_actor(context), details=report)
        for store, count in synced.added.items():
            if count:
                self.log.warning(
                    "The audit trail in %s lacked %d events; it has them now", store, count
                )
        for store, why in synced.problems.items():
            self.log.warning("The audit trail in %s was not caught up: %s", store, why)
        if failed:
            raise AirflowFailException(
                f"Not all of the run succeeded: {', '.join(failed)}. The log of each says why; "
                "what it could not do stays as it was."
            )
        return report
