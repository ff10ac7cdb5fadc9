"""The services that use what a recovery in place replaces: noted, stopped, and started again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from typing_extensions import override

from neuroca_backup.errors import BackupError
from neuroca_backup.model.identity import Component
from neuroca_backup.operators.recovery_step import SERVICES, RecoveryOperator, Situation
from neuroca_backup.operators.restore_step import Bench, RestoreOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

_STATES = "states"


class NoteServicesOperator(RecoveryOperator):
    """Note which services run, before any is stopped; what ran is what is started again.

    The states are kept beyond this task's end: run again while services are stopped, it still
    gives those of before.
    """

    ui_color = "#7a5195"

    @override
    def work(self, here: Situation, context: Context) -> dict[str, dict[str, str]]:
        from neuroca_backup.services.quiesce import STOPPED  # noqa: PLC0415 - only tasks need it

        plan = here.approved_plan(context)
        if not plan.services:
            raise AirflowSkipException(
                "No service is stopped: backup.yaml names none, or nothing is replaced in place."
            )
        store: Any = context["task_state_store"]
        earlier: dict[str, dict[str, str]] = store.get(_STATES) or {}
        found: dict[str, dict[str, str]] = {}
        for component in here.request.lost(here.runtime.settings):
            known = earlier.get(component.value, {})
            found[component.value] = {
                name: known.get(name, state) if state == STOPPED else state
                for name, state in here.runtime.quiesce(component).look().items()
            }
        store.set(_STATES, found)
        for states in found.values():
            for name, state in states.items():
                self.log.info("%s is %s", name, state)
        return found


class StopServicesOperator(RestoreOperator):
    """Stop what uses the data, once all that is to be loaded has been fetched and checked."""

    ui_color = "#7a5195"

    @override
    def run(self, bench: Bench, context: Context) -> dict[str, Any]:
        component = Component(self.plan.component)
        quiesce = bench.runtime.quiesce(component)
        if not bench.request.in_place or not quiesce.settings:
            return {"notes": []}
        ti: Any = context["ti"]
        noted: dict[str, dict[str, str]] | None = ti.xcom_pull(task_ids=SERVICES)
        if not noted or component.value not in noted:
            raise AirflowFailException(
                "Nobody noted which services run: clear the task infrastructure.services."
            )
        return {"notes": list(quiesce.stop(noted[component.value]))}


class ResumeServicesOperator(RecoveryOperator):
    """Start again what ran before, whatever became of the restores."""

    ui_color = "#7a5195"

    @override
    def work(self, here: Situation, context: Context) -> None:
        ti: Any = context["ti"]
        noted: dict[str, dict[str, str]] = ti.xcom_pull(task_ids=SERVICES) or {}
        if not noted:
            raise AirflowSkipException("No service was stopped.")
        failures: list[BackupError] = []
        for component, states in noted.items():
            try:
                for line in here.runtime.quiesce(Component(component)).resume(states):
                    self.log.info("%s", line)
            except BackupError as error:
                self.log.error("%s", error)  # noqa: TRY400 - raised below
                failures.append(error)
        if failures:
            raise failures[0]
