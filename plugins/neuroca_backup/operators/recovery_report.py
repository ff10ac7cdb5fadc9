"""The last task of a recovery: what became of it, red unless everything is back."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowFailException
from typing_extensions import override

from neuroca_backup.errors import NotFoundError
from neuroca_backup.model.recovery import EventKind
from neuroca_backup.operators.recovery_step import (
    APPROVALS,
    RecoveryOperator,
    Situation,
    attempt_of,
)

if TYPE_CHECKING:
    from airflow.sdk import Context


class ReportOperator(RecoveryOperator):
    """End the journal and report; fail unless everything came back and every check passed.

    It runs whatever became of the steps before. Cleared after something was mended, it reports
    anew.
    """

    @override
    def work(self, here: Situation, context: Context) -> dict[str, Any]:
        from neuroca_backup.services.recovery.report import (  # noqa: PLC0415 - only the task's
            render,
            rpo_of,
            write,
        )
        from neuroca_backup.services.recovery.verdict import (  # noqa: PLC0415 - only the task's
            verdict,
        )

        ti: Any = context["ti"]
        try:
            reading = here.journal.read(tolerant=True)
        except NotFoundError:
            raise AirflowFailException(
                "There is no plan, so nothing was recovered: the log of assess.plan says why."
            ) from None
        approval = ti.xcom_pull(task_ids=APPROVALS[-1])
        found = verdict(reading.declared, reading.events, approved=bool(approval))
        failed = [] if not approval else self._failed(context)
        reasons = [*found.reasons, *(f"the task {task} failed" for task in failed)]
        here.note(EventKind.ENDED, once=f"ended:{attempt_of(context)}", outcome=found.outcome)
        settings = here.runtime.settings
        limits = rpo_of(settings, reading.declared.sources)
        written = write(here.journal, now=datetime.now(UTC), rpo=limits)
        for line in render(written, form="md").splitlines():
            self.log.info("%s", line)
        for reason in reasons:
            self.log.error("%s", reason)
        if reasons:
            raise AirflowFailException(
                f"{here.ref.recovery_id} is {found.outcome}: {'; '.join(reasons)}"
            )
        return {"recovery_id": here.ref.recovery_id, "outcome": found.outcome}

    def _failed(self, context: Context) -> list[str]:
        """Return the tasks that failed; those after them are not named, nor are the clocks."""
        ti: Any = context["ti"]
        run: Any = context["dag_run"]
        states: dict[str, dict[str, Any]] = ti.get_task_states(
            dag_id=run.dag_id, run_ids=[run.run_id]
        )
        return sorted(
            task
            for found in states.values()
            for task, state in found.items()
            if str(getattr(state, "value", state)) == "failed" and not task.startswith("rto_")
        )
