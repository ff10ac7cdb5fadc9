"""What every step of a restore has: the form, the plan, and what the steps before have reported.

The plan travels by XCom; the target is resolved anew in every task, so no address or password
is ever stored.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from neuroca_backup.errors import TargetRefusedError
from neuroca_backup.hooks.neuroca import NeurocaHook, translated
from neuroca_backup.model.tickets import FetchReport, RestorePlan
from neuroca_backup.operators.backup import run_set_id
from neuroca_backup.operators.restore_request import RestoreRequest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context
    from airflow.sdk.definitions._internal.expandinput import MappedArgument
    from airflow.sdk.definitions.xcom_arg import XComArg

    from neuroca_backup.engines import RestoreTarget
    from neuroca_backup.runtime import Runtime

CHECKS_GROUP = "checks"
SOURCE_GROUP = "source"
CHECKS = ("sandbox", "space", "integrity", "versions", "state")
STEPS = ("fetch", "stop", "save", "load", "compare", "publish", "examine")
APPROVE = "approve"
SERVICES = "services"


@dataclass(frozen=True, slots=True)
class Bench:
    """What a step works with."""

    runtime: Runtime
    hook: NeurocaHook
    request: RestoreRequest

    @classmethod
    def of(cls, context: Context, *, form: Mapping[str, Any] | None = None) -> Bench:
        """Build it from a restore form: that of the run, where none is given."""
        hook = NeurocaHook()
        runtime = hook.runtime
        given = dict(context["params"] if form is None else form)
        request = RestoreRequest.parse(given, runtime.settings)
        return cls(runtime=runtime.at(request.as_of), hook=hook, request=request)

    def target(self, plan: RestorePlan, *, planned: str = "") -> RestoreTarget:
        """The server to restore to, refused if it may not be.

        Raises:
            TargetRefusedError: In place, and the connection leads elsewhere than was `planned`.
        """
        target = self.request.resolve(
            self.runtime.settings,
            self.hook.connections,
            self.runtime.spool.sandbox(plan.restore_id),
            source=plan.source,
            engine=plan.engine,
        )
        if target.replace and planned and target.endpoint.label != planned:
            raise TargetRefusedError(
                f"{plan.source} was planned to be restored at {planned}, and its connection now "
                f"leads to {target.endpoint.label}",
                remedy="Somebody has changed the connection: trigger a new run.",
                target=target.endpoint.label,
            )
        return target

    def destination(self, plan: RestorePlan) -> str:
        """Where the source goes, in words for people."""
        return self.request.destination(
            self.runtime.settings,
            self.hook.connections,
            source=plan.source,
            engine=plan.engine,
        )


def restore_id(context: Context, source: str) -> str:
    """Return the id of one source's restore in this run, the same on every retry."""
    return f"restore-{run_set_id(context)}-{source}"


def actor(context: Context) -> str:
    """Return who triggered the run, for the records."""
    run: Any = context["dag_run"]
    return run.triggering_user_name or f"airflow ({run.run_type})"


def report_of(
    context: Context, step: str, index: int, *, group: str = CHECKS_GROUP
) -> dict[str, Any] | None:
    """Return what a step of the source `index` has reported, or None if it has not succeeded."""
    ti: Any = context["ti"]
    found: dict[str, Any] | None = ti.xcom_pull(task_ids=f"{group}.{step}", map_indexes=index)
    return found


def failed_check(context: Context, index: int, *, group: str = CHECKS_GROUP) -> str | None:
    """Return the first check that the source `index` has not passed, or None."""
    return next((step for step in CHECKS if not report_of(context, step, index, group=group)), None)


class RestoreOperator(BaseOperator):
    """A step of one source's restore; subclasses say in `run` which call it is.

    Args:
        order: What the task `plan` decided for this source. In a recovery it also has the `form`
            of this source's restore, the group of its `checks` and its `index` there, "" where
            nothing was checked before, and `over` which source it is restored.
    """

    template_fields: Sequence[str] = ("order",)
    ui_fgcolor = "#ffffff"

    def __init__(self, *, order: XComArg | MappedArgument | dict[str, Any], **kwargs: Any) -> None:
        self.order = order
        super().__init__(
            **{
                "doc_md": type(self).__doc__,
                "map_index_template": "{{ task.order['source'] }}",
                **kwargs,
            }
        )

    def execute(self, context: Context) -> dict[str, Any]:
        """Call the service; return its report with how long it took, in seconds."""
        started = time.monotonic()
        with translated():
            report = self.run(self.bench(context), context)
        for note in report.get("notes", ()):
            self.log.info("%s", note)
        return {**report, "seconds": round(time.monotonic() - started, 3)}

    def run(self, bench: Bench, context: Context) -> dict[str, Any]:
        """Do this step's one call."""
        raise NotImplementedError

    def bench(self, context: Context) -> Bench:
        """What this step works with."""
        return Bench.of(context, form=self.received.get("form"))

    @property
    def received(self) -> dict[str, Any]:
        """What the task `plan` decided for this source."""
        if not isinstance(self.order, dict):
            raise AirflowFailException("There is no plan: the task plan failed, see its log.")
        return self.order

    @property
    def plan(self) -> RestorePlan:
        """What is to be restored; raises where it could not be planned."""
        if self.received["plan"] is None:
            raise AirflowFailException(self.received["problem"])
        return RestorePlan.from_json(self.received["plan"])

    def target(self, bench: Bench, plan: RestorePlan) -> RestoreTarget:
        """Where it goes, which in place is where the task `plan` has said.

        What is restored `over` another source of the same run may take the place of what that
        source has just brought.
        """
        target = bench.target(plan, planned=self.received["to"])
        return replace(target, replace=True) if self.received.get("over") else target

    def report(self, context: Context, step: str) -> dict[str, Any] | None:
        """Return what a step of the same source has reported, or None if it has not succeeded."""
        ti: Any = context["ti"]
        if step not in CHECKS:
            return report_of(context, step, ti.map_index, group=self.group)
        return report_of(context, step, self.checked_index(context), group=self.checks)

    @property
    def group(self) -> str:
        """The group that this step is in, with those above it."""
        return str(self.task_id).rpartition(".")[0]

    @property
    def checks(self) -> str:
        """The group of this source's checks, "" where there were none."""
        return str(self.received.get("checks", CHECKS_GROUP))

    def checked_index(self, context: Context) -> int:
        """Return the index of this source among the checks."""
        ti: Any = context["ti"]
        found: int = self.received.get("index", ti.map_index)
        return found

    def fetched(self, context: Context) -> FetchReport:
        """Return what the task `fetch` brought; its plan is what the steps after it work on."""
        report = self.report(context, "fetch")
        if not report:
            raise AirflowFailException("Nothing was fetched: clear the task fetch.")
        return FetchReport.from_json(report["fetched"])
