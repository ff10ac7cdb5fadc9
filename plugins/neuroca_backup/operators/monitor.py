"""The tasks of `monitor_objectives`: four that look, one that tells, one that is red or green."""

from __future__ import annotations

from abc import abstractmethod
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowRuntimeError

from neuroca_backup.hooks.neuroca import NeurocaHook, run_actor, translated
from neuroca_backup.operators.monitor_request import MonitorRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from neuroca_backup.model.identity import Component
    from neuroca_backup.runtime import Runtime
    from neuroca_backup.services.objectives.findings import Finding
    from neuroca_backup.services.objectives.schedules import DagState

# What each looking task looks for, in the words of `services.objectives.findings.Kind`.
KINDS = {
    "schedules": ("schedule",),
    "objectives": ("rpo", "copies", "content", "store", "catalog"),
    "forecast": ("forecast",),
    "restore_tests": ("restore_test",),
}
VERDICT = "verdict"
# XComs must stay small: what is left out is counted.
_MOST = 100
_NOT_FOUND = 404


class LookOperator(BaseOperator):
    """A task that looks at one concern; subclasses say at which.

    It is green when it has looked, whatever it saw: `verdict` is red where something is wrong.
    """

    ui_color = "#1f4e79"
    ui_fgcolor = "#ffffff"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"doc_md": type(self).__doc__, **kwargs})

    def execute(self, context: Context) -> dict[str, Any]:
        """Return how many things were looked at, and the `findings` that are not OK."""
        with translated():
            request = MonitorRequest.parse(dict(context["params"]))
            found = self.look(NeurocaHook().runtime, request.component, context)
        for one in found:
            self.log.log(20 + 10 * one.level, "%s: %s", one.level.word, one.sentence)
        wrong = sorted((one for one in found if one.level), key=lambda one: (-one.level, one.key))
        return {
            "looked_at": len(found),
            "left_out": max(len(wrong) - _MOST, 0),
            "findings": [one.to_json() for one in wrong[:_MOST]],
        }

    @abstractmethod
    def look(
        self, runtime: Runtime, component: Component | None, context: Context
    ) -> Sequence[Finding]:
        """Return everything that was looked at, what is OK, too."""


class SchedulesOperator(LookOperator):
    """Look whether the backups are scheduled, unpaused, started on time, and did not fail."""

    def look(
        self, runtime: Runtime, component: Component | None, context: Context
    ) -> Sequence[Finding]:
        """Return one finding for each component with sources."""
        from neuroca_backup.services.objectives import schedules  # noqa: PLC0415 - only the task

        now = datetime.now(UTC)
        states = [
            dag_state(one, runtime, context, now=now)
            for one in runtime.objectives.components(component)
        ]
        return schedules.judge(now, states)


class RecoveryPointsOperator(LookOperator):
    """Look at the age, the copies and the content of the newest backup of every source."""

    def look(
        self,
        runtime: Runtime,
        component: Component | None,
        context: Context,  # noqa: ARG002 - the others' signature
    ) -> Sequence[Finding]:
        """Return what is to be said of every source."""
        return runtime.objectives.recovery_points(component)


class ForecastOperator(LookOperator):
    """Look whether everything could be restored within its recovery time objective."""

    def look(
        self,
        runtime: Runtime,
        component: Component | None,  # noqa: ARG002 - a recovery is of the whole system
        context: Context,  # noqa: ARG002 - the others' signature
    ) -> Sequence[Finding]:
        """Return one finding for each objective."""
        return runtime.objectives.forecasts()


class RestoreTestsOperator(LookOperator):
    """Look whether the restore of every source was tested lately enough."""

    def look(
        self,
        runtime: Runtime,
        component: Component | None,
        context: Context,  # noqa: ARG002 - the others' signature
    ) -> Sequence[Finding]:
        """Return one finding for each source."""
        return runtime.objectives.restore_tests(component)


class RecordOperator(BaseOperator):
    """Tell people what is new, worse, or has lasted; then keep what was told.

    It runs whatever became of the tasks before. One that did not come to its end has seen nothing,
    and that is told, too. A dry run tells nobody and keeps nothing.
    """

    ui_color = "#1f4e79"
    ui_fgcolor = "#ffffff"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"doc_md": type(self).__doc__, **kwargs})

    def execute(self, context: Context) -> dict[str, Any]:
        """Return the breaches as sentences, and how many findings were told."""
        from neuroca_backup.notifications.channels import Channels  # noqa: PLC0415 - only the task
        from neuroca_backup.services.objectives import telling  # noqa: PLC0415 - as above
        from neuroca_backup.services.objectives.findings import Level  # noqa: PLC0415 - as above

        with translated():
            request = MonitorRequest.parse(dict(context["params"]))
            runtime = NeurocaHook().runtime
            found, seen = _gathered(context)
            decision = runtime.objectives.decide(
                found,
                covers=lambda kind, component: (
                    kind.value in seen
                    and (request.component is None or component in {"", request.component})
                ),
            )
            for key in decision.over:
                self.log.info("Over: %s", key)
            text = telling.message(decision.tell)
            if decision.tell:
                self.log.warning("New, worse or lasting:\n%s", text)
            if decision.tell and not request.dry_run:
                Channels(runtime.settings.notifications).send(
                    subject=telling.subject(decision.tell), message=text, context=context
                )
            if not request.dry_run:
                # Afterwards: whoever is killed in between tells twice, and not never.
                if not runtime.objectives.keep(decision.state):
                    self.log.error("No store keeps what was told: the next run tells it again")
                if decision.tell:
                    runtime.objectives.note(decision.tell, actor=_actor(context))
        worth = [one for one in found if telling.worth_telling(one)]
        breaches = [one for one in worth if one.level is Level.BREACH]
        return {
            "told": 0 if request.dry_run else len(decision.tell),
            "breaches": len(breaches),
            "warnings": len(worth) - len(breaches),
            "message": telling.message(sorted(breaches, key=lambda one: one.key)),
        }


class VerdictOperator(BaseOperator):
    """Red while an objective is missed, whether anybody is told again or not."""

    ui_color = "#7a2e2e"
    ui_fgcolor = "#ffffff"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"doc_md": type(self).__doc__, **kwargs})

    def execute(self, context: Context) -> None:
        """Fail with everything that is missed; of a dry run only log it."""
        with translated():
            request = MonitorRequest.parse(dict(context["params"]))
        recorded = context["ti"].xcom_pull(task_ids="record")
        if not recorded:
            raise AirflowFailException("`record` has left nothing. Clear it; its log says why.")
        if not recorded["breaches"]:
            self.log.info("Every objective is kept; %s warnings", recorded["warnings"])
        elif request.dry_run:
            self.log.warning("A dry run; it would be red:\n%s", recorded["message"])
        else:
            raise AirflowFailException(recorded["message"])


def dag_state(
    component: Component, runtime: Runtime, context: Context, *, now: datetime
) -> DagState:
    """Return what Airflow says of the backups of `component`; what it does not is in it, too."""
    from neuroca_backup.services.objectives.schedules import (  # noqa: PLC0415 - only the task
        DagState,
        due_at,
    )

    dag_id, cron = f"backup_{component}", runtime.settings.schedule.of(component)
    rpo, due = runtime.settings.objectives.rpo.of(component), due_at(cron, now=now)
    ti = context["ti"]
    try:
        dag = ti.get_dag(dag_id)
        dates = [due] if due else []
        runs = ti.get_dr_count(dag_id, logical_dates=dates) if dates else 0
        failed = ti.get_dr_count(dag_id, logical_dates=dates, states=["failed"]) if runs else 0
    except AirflowRuntimeError as error:
        detail = error.error.detail or {}
        missing = detail.get("status_code") == _NOT_FOUND
        problem = "" if missing else error.error.error.value
        return DagState(component, dag_id, cron, rpo, known=not missing, due=due, problem=problem)
    return DagState(
        component,
        dag_id,
        cron,
        rpo,
        paused=dag.is_paused,
        due=due,
        runs=runs,
        failed=failed,
        planned=dag.next_dagrun,
    )


def _gathered(context: Context) -> tuple[list[Finding], set[str]]:
    """Return what the looking tasks found, and the kinds that were looked for to the end."""
    from neuroca_backup.services.objectives.findings import (  # noqa: PLC0415 - only the task
        Finding,
        Kind,
        Level,
    )

    found: list[Finding] = []
    seen = {Kind.CHECK.value}
    for task_id, kinds in KINDS.items():
        report = context["ti"].xcom_pull(task_ids=task_id)
        problem = ""
        if report is None:
            problem = "the check did not come to its end, so what it looks at is not known"
        elif not report["looked_at"]:
            problem = "the check had nothing to look at"
        elif report["left_out"]:
            problem = f"{report['left_out']} more findings are in the log of this task alone"
        if report is not None:
            found += [Finding.from_json(one) for one in report["findings"]]
            seen.update(kinds)
        if problem:
            found.append(
                Finding(
                    kind=Kind.CHECK,
                    level=Level.BREACH,
                    component="",
                    subject=task_id,
                    problem=problem,
                    remedy="The log of this task in monitor_objectives says why.",
                )
            )
    return found, seen


def _actor(context: Context) -> str:
    return run_actor(context["dag_run"])
