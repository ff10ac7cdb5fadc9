"""What every task of a recovery has: the form, the journal, and the plan that was approved."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from neuroca_backup.hooks.neuroca import NeurocaHook, translated
from neuroca_backup.model.recovery import EventKind, RecoveryRef
from neuroca_backup.operators.backup import run_set_id
from neuroca_backup.operators.restore_step import Bench, actor

if TYPE_CHECKING:
    from airflow.sdk import Context

    from neuroca_backup.model.endpoint import Endpoint
    from neuroca_backup.model.recovery import Value
    from neuroca_backup.runtime import Runtime
    from neuroca_backup.services.recovery.journal import Journal
    from neuroca_backup.services.recovery.plan import PlannedSource, RecoveryPlan
    from neuroca_backup.services.recovery.request import RecoveryRequest

ASSESS, ACTIVATE, INFRASTRUCTURE = "assess", "activate", "infrastructure"
RESTORE, VERIFY, RETURN = "restore", "verify", "return"
PLAN = f"{ASSESS}.plan"
APPROVALS = (f"{ACTIVATE}.approve", f"{ACTIVATE}.approve_again")
SERVICES = f"{INFRASTRUCTURE}.services"
TARGET_GROUP = f"{INFRASTRUCTURE}.target"
SOURCE_GROUP = "source"

# Events are read again and again, by every clock.
_LONGEST_DETAIL = 1000


@dataclass(frozen=True)
class Situation:
    """What a task of a recovery works with."""

    runtime: Runtime
    request: RecoveryRequest
    ref: RecoveryRef
    actor: str
    restore_prefix: str

    @classmethod
    def of(cls, context: Context) -> Situation:
        """Build it from the run's form; the recovery's id is the same in every task of the run."""
        from neuroca_backup.services.recovery.request import (  # noqa: PLC0415 - only tasks need it
            RecoveryRequest,
        )

        runtime = NeurocaHook().runtime
        request = RecoveryRequest.parse(dict(context["params"]), runtime.settings)
        return cls(
            runtime=runtime,
            request=request,
            ref=recovery_ref(context, drill=request.drill),
            actor=actor(context),
            restore_prefix=f"restore-{run_set_id(context)}",
        )

    @cached_property
    def journal(self) -> Journal:
        """The journal of this recovery."""
        return self.runtime.journal(self.ref.recovery_id)

    @cached_property
    def plan(self) -> RecoveryPlan:
        """The plan as it is stored."""
        from neuroca_backup.services.recovery.plan import (  # noqa: PLC0415 - only tasks need it
            PLAN_JSON,
            RecoveryPlan,
        )

        return RecoveryPlan.decode(self.journal.attachment(PLAN_JSON), name=PLAN_JSON)

    def approved_plan(self, context: Context) -> RecoveryPlan:
        """Return the plan; nothing of it is done unless exactly this one was approved.

        Raises:
            AirflowSkipException: Nobody has approved it.
            AirflowFailException: Another one was approved.
        """
        ti: Any = context["ti"]
        approval = ti.xcom_pull(task_ids=APPROVALS[-1])
        if not approval:
            raise AirflowSkipException("The plan was not approved, so nothing of it is done.")
        if approval["sha256"] != self.plan.sha256:
            raise AirflowFailException(
                f"The stored plan is {self.plan.sha256}, and {approval['sha256']} was approved: "
                "somebody has changed it. Nothing is done. Trigger a new run."
            )
        return self.plan

    def declared_at(self, context: Context) -> datetime:
        """Return when the disaster began to count: what was said, or the start of the run."""
        run: Any = context["dag_run"]
        found: datetime = self.request.declared_at or run.start_date or run.run_after
        return found

    def note(
        self,
        kind: EventKind,
        subject: str = "",
        *,
        once: str,
        **details: Value,
    ) -> None:
        """Add an event to the journal; a repeat with the same `once` adds nothing."""
        short = {
            name: value[:_LONGEST_DETAIL] if isinstance(value, str) else value
            for name, value in details.items()
        }
        self.journal.append(kind, subject, once=once, actor=self.actor, details=short)

    def order(self, index: int, one: PlannedSource, *, checks: str) -> dict[str, Any]:
        """Return what the tasks of one source's restore are told."""
        forecast = one.forecast
        return {
            "source": one.source,
            "plan": None if one.plan is None else one.plan.to_json(),
            "to": one.to,
            "forecast": None if forecast is None else {"seconds": forecast.seconds},
            "problem": one.problem,
            "form": dict(one.form),
            "checks": checks,
            "index": index,
            # In a throwaway server of its own nothing is in its way; in place it may replace.
            "over": one.covered_by if one.form.get("target") == "connection" else "",
        }

    def holds(self, one: PlannedSource) -> bool:
        """Return whether what was restored can still be there: throwaway servers may be gone."""
        from neuroca_backup import sandbox  # noqa: PLC0415 - only tasks need it

        if not self.request.drill or one.plan is None:
            return one.plan is not None
        return bool(sandbox.endpoints(self.runtime.spool.sandbox(one.plan.restore_id)))

    def whereabouts(self, context: Context, one: PlannedSource) -> Endpoint:
        """Return where `one` was restored, to be asked and not to be written to.

        A new server may be the source itself by then: backup.yaml's connections lead there once
        the system has returned to normal, and a restore there would be refused.
        """
        from neuroca_backup.services import targets  # noqa: PLC0415 - only tasks need it

        assert one.plan is not None  # noqa: S101 - it was restored
        bench = Bench.of(context, form=one.form)
        connection = bench.request.target_connection
        if connection is None:
            return bench.target(one.plan).endpoint
        there = bench.hook.connections.endpoint(connection)
        return targets.with_default_port(there, one.plan.engine)


def recovery_ref(context: Context, *, drill: bool) -> RecoveryRef:
    """Return which recovery this run is."""
    run: Any = context["dag_run"]
    return RecoveryRef.new(at=run.run_after, drill=drill, run=f"{run.dag_id}/{run.run_id}")


def attempt_of(context: Context) -> str:
    """Return what tells this attempt of a task from others, for events that may come again."""
    ti: Any = context["ti"]
    return f"{ti.task_id}[{ti.map_index}]:{ti.try_number}"


class RecoveryOperator(BaseOperator):
    """A task of a recovery; subclasses say in `work` what it does."""

    ui_color = "#1f4e79"
    ui_fgcolor = "#ffffff"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"doc_md": type(self).__doc__, **kwargs})

    def execute(self, context: Context) -> Any:
        """Do it, with our errors in Airflow's words."""
        with translated():
            return self.work(Situation.of(context), context)

    def work(self, here: Situation, context: Context) -> Any:
        """Do this task's one call."""
        raise NotImplementedError
