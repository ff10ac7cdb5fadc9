"""The approval of a restore in place: by another person, of exactly what is then done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from typing_extensions import override

from neuroca_backup.hooks.neuroca import translated
from neuroca_backup.operators.approval import SHOWN_DIGITS, SecondPersonOperator
from neuroca_backup.operators.restore_plan import planned_again, proposal_of
from neuroca_backup.operators.restore_step import CHECKS, Bench, failed_check, report_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context

    from neuroca_backup.services.proposal import Proposal


class ApproveOperator(SecondPersonOperator):
    """Ask a second person before anything is replaced in place; end a dry run here.

    Who triggered the run may reject it, not approve it. The subject has the beginning of the
    digest of the plan, and after the answer everything is planned again: another digest, and
    nothing is restored. Nobody's answer within the time is no.

    Args:
        orders: What the task `plan` decided.
        approvals: 1, or 0 where nobody has to agree.
    """

    template_fields: Sequence[str] = ("orders",)
    undone = "Nothing was restored"

    def __init__(self, *, orders: Any, approvals: int, **kwargs: Any) -> None:
        self.orders = orders
        self.approvals = approvals
        super().__init__(**{"subject": "Restore in place", **kwargs})

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
        triggered_by = self.triggered_by(context)
        raise self.ask(
            context,
            sha256=proposal.sha256,
            subject=f"Restore {_sources(self.orders)} in place? Plan "
            f"{proposal.sha256[:SHOWN_DIGITS]}, asked for by {triggered_by}",
            body=self._body(context, proposal, failed),
        )

    @override
    def digest_now(self, context: Context) -> str:
        return planned_again(Bench.of(context), self.orders).sha256

    @override
    def asked_about(self, context: Context) -> str:
        return _sources(self.orders)

    @override
    def barred(self, context: Context) -> Mapping[str, str]:
        return {self.triggered_by(context): "has triggered this restore"}

    def _require_checks(self, failed: Mapping[str, str], *, dry_run: bool) -> None:
        told = "; ".join(f"{source} has not passed {check}" for source, check in failed.items())
        if len(failed) == len(self.orders):
            raise AirflowFailException(f"Nothing can be restored: {told}. Their logs say why.")
        if failed and dry_run:
            raise AirflowFailException(f"Not everything can be restored: {told}.")
        if failed:
            self.log.warning("The others go on without: %s", told)

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
