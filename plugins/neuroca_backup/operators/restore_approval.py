"""The approval of a restore in place: by another person, of exactly what is then done."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk.exceptions import (
    AirflowFailException,
    AirflowSkipException,
    TaskAwaitingInput,
)
from typing_extensions import override

from neuroca_backup.errors import BackupError
from neuroca_backup.hooks.neuroca import NeurocaHook, translated
from neuroca_backup.operators.restore_plan import planned_again, proposal_of
from neuroca_backup.operators.restore_step import (
    CHECKS,
    REFUSAL,
    Bench,
    failed_check,
    report_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context

    from neuroca_backup.services.proposal import Proposal

APPROVE = "Approve"
REJECT = "Reject"
_SHOWN_DIGITS = 16


class ApproveOperator(HITLOperator):
    """Ask a second person before anything is replaced in place; end a dry run here.

    Who triggered the run may reject it, not approve it. The subject has the beginning of the
    digest of the plan, and after the answer everything is planned again: another digest, and
    nothing is restored. Nobody's answer within the time is no.

    Args:
        orders: What the task `plan` decided.
        approvals: 1, or 0 where nobody has to agree.
        response_timeout: How long an answer is waited for.
    """

    template_fields: Sequence[str] = ("orders",)
    ui_color = "#a3461c"
    ui_fgcolor = "#ffffff"

    def __init__(
        self, *, orders: Any, approvals: int, response_timeout: timedelta, **kwargs: Any
    ) -> None:
        self.orders = orders
        self.approvals = approvals
        super().__init__(
            **{
                "doc_md": type(self).__doc__,
                "subject": "Restore in place",
                "options": [APPROVE, REJECT],
                "response_timeout": response_timeout,
                "retries": 0,  # a retry would ask again
                **kwargs,
            }
        )

    @override
    def execute(self, context: Context) -> dict[str, Any]:
        with translated():
            bench = Bench.of(context)
            proposal = proposal_of(bench, self.orders)
        failed = {
            order["source"]: check
            for index, order in enumerate(self.orders)
            if (check := failed_check(context, index)) is not None
        }
        for line in proposal.lines():
            self.log.info("%s", line)
        self._require_checks(failed, dry_run=bench.request.dry_run)
        if bench.request.dry_run:
            raise AirflowSkipException("Dry run: the plan is above; nothing was touched.")
        if not bench.request.in_place or self.approvals == 0:
            self.log.info("Nobody has to approve: nothing is replaced, or backup.yaml says so")
            return {"approved_by": "", "sha256": proposal.sha256}
        triggered_by = self._triggered_by(context)
        self.subject = (
            f"Restore {_sources(self.orders)} in place? Plan {proposal.sha256[:_SHOWN_DIGITS]}, "
            f"asked for by {triggered_by}"
        )
        self.body = self._body(context, proposal, failed)
        deadline = datetime.now(UTC) + self._patience
        raise self._question(context, sha256=proposal.sha256, deadline=deadline)

    @override
    def execute_complete(
        self, context: Context, event: dict[str, Any], sha256: str = "", deadline: str = ""
    ) -> dict[str, Any]:
        if event.get("timedout") or "error" in event:
            self._refuse(context, f"nobody answered within {self._patience}")
        user: Mapping[str, str] = event.get("responded_by_user") or {}
        name = user.get("name") or user.get("id") or ""
        if event["chosen_options"] != [APPROVE]:
            self._note(name or "somebody unknown", "rejected", sha256=sha256)
            self._refuse(context, f"rejected by {name or 'somebody unknown'}")
        if not name:
            self._refuse(context, "approved by somebody whose name Airflow does not tell")
        if self._triggered_by(context) in user.values():
            until = datetime.fromisoformat(deadline)
            if until <= datetime.now(UTC):
                self._refuse(context, f"nobody but {name} answered within {self._patience}")
            self.log.error(
                "%s has triggered this restore, so another person has to approve it: asked again",
                name,
            )
            raise self._question(context, sha256=sha256, deadline=until)
        self._require_the_same(context, sha256, approved_by=name)
        self._note(name, "approved", sha256=sha256)
        self.log.info("Approved by %s: plan %s", name, sha256)
        return {"approved_by": name, "sha256": sha256}

    def _note(self, who: str, result: str, *, sha256: str) -> None:
        audit = NeurocaHook().runtime.audit
        details = {"plan": sha256, "run": audit.actor}
        audit.note("approve", _sources(self.orders), actor=who, result=result, details=details)

    @property
    def _patience(self) -> timedelta:
        assert self.response_timeout is not None  # noqa: S101 - given at construction
        return self.response_timeout

    def _question(self, context: Context, *, sha256: str, deadline: datetime) -> BaseException:
        """Ask, or ask again; return what lets the task wait for the answer without a worker."""
        try:
            super().execute(context)
        except TaskAwaitingInput as waiting:
            return TaskAwaitingInput(
                method_name=waiting.method_name,
                kwargs={"sha256": sha256, "deadline": deadline.isoformat()},
                timeout=deadline - datetime.now(UTC),
            )
        return AirflowFailException("Airflow did not wait for an answer; nothing was touched.")

    def _require_checks(self, failed: Mapping[str, str], *, dry_run: bool) -> None:
        told = "; ".join(f"{source} has not passed {check}" for source, check in failed.items())
        if len(failed) == len(self.orders):
            raise AirflowFailException(f"Nothing can be restored: {told}. Their logs say why.")
        if failed and dry_run:
            raise AirflowFailException(f"Not everything can be restored: {told}.")
        if failed:
            self.log.warning("The others go on without: %s", told)

    def _triggered_by(self, context: Context) -> str:
        run: Any = context["dag_run"]
        name: str | None = run.triggering_user_name
        if not name:
            self._refuse(
                context,
                "Airflow does not tell who triggered it, so nobody can be told apart from them: "
                "trigger it from the UI or the API as a user",
            )
        return name

    def _require_the_same(self, context: Context, sha256: str, *, approved_by: str) -> None:
        try:
            now = planned_again(Bench.of(context), self.orders).sha256
        except BackupError as error:
            self._refuse(context, f"approved by {approved_by}, but not possible now: {error}")
        if now != sha256:
            self._refuse(
                context,
                f"approved by {approved_by} as plan {sha256[:_SHOWN_DIGITS]}, which by now would "
                f"be {now[:_SHOWN_DIGITS]}: a backup, a connection or backup.yaml has changed",
            )

    def _refuse(self, context: Context, why: str) -> NoReturn:
        ti: Any = context["ti"]
        ti.xcom_push(key=REFUSAL, value=why)
        raise AirflowFailException(
            f"Nothing was restored: {why}. Nothing was touched. Clear this task to ask again."
        )

    def _body(self, context: Context, proposal: Proposal, failed: Mapping[str, str]) -> str:
        lines = [f"- {line.strip()}" for line in proposal.lines()]
        lines += [f"- NOT restored: {source} did not pass {one}" for source, one in failed.items()]
        for index, order in enumerate(self.orders):
            lines += [f"\n**{order['source']}, checked**\n"]
            for check in CHECKS:
                notes = (report_of(context, check, index) or {}).get("notes", ())
                lines += [f"- {check}: {note}" for note in notes]
        return "\n".join([*lines, f"\nSHA-256 of the plan: `{proposal.sha256}`"])


def _sources(orders: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(order["source"] for order in orders if order["plan"] is not None)
