"""Step 2 of a recovery: the team is told, and other people approve exactly what will be done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from typing_extensions import override

from neuroca_backup.hooks.neuroca import translated
from neuroca_backup.model.recovery import EventKind
from neuroca_backup.operators.approval import SHOWN_DIGITS, SecondPersonOperator
from neuroca_backup.operators.recovery_step import (
    APPROVALS,
    PLAN,
    RecoveryOperator,
    Situation,
    attempt_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk import Context

    from neuroca_backup.services.recovery.plan import RecoveryPlan


class NotifyTeamOperator(RecoveryOperator):
    """Tell the team what happened, what is planned, and where to talk and to approve.

    It goes to the channels of `notifications` in backup.yaml, and to the form's addresses. A
    failure keeps nothing else from going on.
    """

    ui_color = "#7a3b69"

    @override
    def work(self, here: Situation, context: Context) -> None:
        from neuroca_backup.notifications.channels import (  # noqa: PLC0415 - only the task needs it
            Channels,
        )
        from neuroca_backup.services.recovery.plan_document import (  # noqa: PLC0415 - as above
            markdown,
        )

        plan = here.plan
        configured = here.runtime.settings.notifications
        addresses = tuple(dict.fromkeys([*configured.email, *here.request.notify]))
        channels = Channels(configured.model_copy(update={"email": addresses}))
        what = "Recovery drill" if plan.drill else "DISASTER RECOVERY"
        sent = channels.send(
            subject=f"{what}: {plan.what_happened[:80]}",
            message=f"{markdown(plan)}\n{_where_to_approve(plan)}",
            context=context,
        )
        if not sent:
            raise AirflowSkipException(
                "Nobody is told: `notifications` in backup.yaml names no channel, and the form no "
                "address."
            )
        here.note(
            EventKind.NOTIFIED,
            once=f"notified:{attempt_of(context)}",
            message=f"the plan, to {sent} channels",
        )


class ApproveRecoveryOperator(SecondPersonOperator):
    """Ask for one approval of the plan; who triggered the run cannot give it.

    Two approvals are given by two people, one after the other. The subject has the beginning of
    the digest of the plan, and after every answer all is planned again: another digest, and
    nothing is done. Nobody's answer within the time is no.

    Args:
        place: Which approval this is, 1 or 2; where fewer are needed nobody is asked.
    """

    undone = "Nothing was recovered"

    def __init__(self, *, place: int, **kwargs: Any) -> None:
        self.place = place
        super().__init__(**{"subject": "Recover", **kwargs})

    @override
    def execute(self, context: Context) -> dict[str, Any]:
        from neuroca_backup.services.recovery.plan_document import (  # noqa: PLC0415 - only tasks
            markdown,
        )

        with translated():
            here = Situation.of(context)
            plan = here.plan
            needed = here.request.needed(here.runtime.settings)
            text = markdown(plan)
        ti: Any = context["ti"]
        if plan.sha256 != (ti.xcom_pull(task_ids=PLAN) or {}).get("sha256"):
            raise AirflowFailException(
                "The stored plan is not the one that assess.plan has made: somebody has changed "
                "it. Nothing was touched. Trigger a new run."
            )
        before = self._before(context)
        if self.place > 1 and (before is None or before["sha256"] != plan.sha256):
            raise AirflowFailException(
                "The plan is another one than the first approval was for. Nothing was touched: "
                "clear the task approve."
            )
        if self.place > needed:
            self.log.info("Nobody is asked: %d approvals are needed", needed)
            return before or {"approved_by": "", "sha256": plan.sha256}
        triggered_by = self.triggered_by(context)
        raise self.ask(
            context,
            sha256=plan.sha256,
            subject=f"Recover {', '.join(one.component for one in plan.components)} "
            f"({plan.target.replace('_', ' ')})? Approval {self.place} of {needed}, plan "
            f"{plan.sha256[:SHOWN_DIGITS]}, asked for by {triggered_by}",
            body=text,
        )

    @override
    def execute_complete(
        self, context: Context, event: dict[str, Any], sha256: str = "", deadline: str = ""
    ) -> dict[str, Any]:
        found = super().execute_complete(context, event, sha256=sha256, deadline=deadline)
        name = found["approved_by"]
        with translated():
            here = Situation.of(context)
            here.journal.append(
                EventKind.APPROVED,
                once=f"approved:{self.place}:{attempt_of(context)}",
                actor=name,
                details={"plan": sha256},
            )
        before = self._before(context)
        names = [before["approved_by"], name] if before else [name]
        return {**found, "approved_by": ", ".join(one for one in names if one)}

    @override
    def digest_now(self, context: Context) -> str:
        here = Situation.of(context)
        return here.runtime.assessment.again(here.request, here.plan).sha256

    @override
    def barred(self, context: Context) -> Mapping[str, str]:
        before = self._before(context)
        first = {before["approved_by"]: "has given the first approval"} if before else {}
        return {**first, self.triggered_by(context): "has triggered this recovery"}

    @override
    def refuse(self, context: Context, why: str) -> NoReturn:
        with translated():
            here = Situation.of(context)
            here.note(
                EventKind.REJECTED,
                once=f"rejected:{self.place}:{attempt_of(context)}",
                plan=here.plan.sha256,
                comment=why,
            )
        super().refuse(context, why)

    def _before(self, context: Context) -> dict[str, Any] | None:
        if self.place == 1:
            return None
        ti: Any = context["ti"]
        found: dict[str, Any] | None = ti.xcom_pull(task_ids=APPROVALS[self.place - 2])
        return found


def _where_to_approve(plan: RecoveryPlan) -> str:
    if plan.approvals == 0:
        return "Nobody has to approve it."
    return "Approve or reject it in Airflow under Required Actions."
