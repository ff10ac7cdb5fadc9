"""The steps of a restore once it is approved; each operator only places one service call."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from typing_extensions import override

from neuroca_backup.hooks.neuroca import NeurocaHook, translated
from neuroca_backup.operators.approval import REFUSAL
from neuroca_backup.operators.backup import run_set_id
from neuroca_backup.operators.restore_checks import start_sandbox
from neuroca_backup.operators.restore_step import (
    APPROVE,
    CHECKS,
    STEPS,
    Bench,
    RestoreOperator,
    actor,
    failed_check,
    restore_id,
)

if TYPE_CHECKING:
    from airflow.sdk import Context

# Who keeps a sandbox to look at has looked by then; it holds production data in clear.
STALE_SANDBOX = timedelta(days=3)


def together(context: Context) -> str:
    """Return what the sources of this run are known by while they are held to each other."""
    return f"agreement-{run_set_id(context)}"


class FetchOperator(RestoreOperator):
    """Fetch, unseal and decompress the members into the spool, every byte checked."""

    ui_color = "#5b3f8c"

    @override
    def run(self, bench: Bench, context: Context) -> dict[str, Any]:
        plan = self.plan
        failed = self._failed_check(context)
        if failed is not None:
            raise AirflowFailException(
                f"{plan.source} has not passed the check {failed}, so nothing is fetched; the log "
                "of that task says why."
            )
        if bench.request.target == "sandbox":
            # Whoever clears this task to repeat a restore needs the server again.
            start_sandbox(bench, plan, forget_after=STALE_SANDBOX)
        restores = bench.runtime.restores
        notes = [] if self.checks else list(restores.preflight(plan, self.target(bench, plan)))
        fetched = restores.fetch(plan)
        notes += fetched.fallbacks
        notes += fetched.plan.passed_over if fetched.plan.backup_id != plan.backup_id else ()
        if fetched.plan.backup_id != plan.backup_id or self.received.get("retrieval"):
            # What lay in an archive could not be looked at before.
            notes += restores.versions(fetched.plan, self.target(bench, fetched.plan))
        return {"fetched": fetched.to_json(), "notes": notes}

    def _failed_check(self, context: Context) -> str | None:
        if not self.checks:
            return None
        return failed_check(context, self.checked_index(context), group=self.checks)


class SaveOperator(RestoreOperator):
    """Back up what a restore in place would overwrite, where the engine keeps no copy itself."""

    ui_color = "#7a3b69"

    @override
    def run(self, bench: Bench, context: Context) -> dict[str, Any]:
        plan = self.fetched(context).plan
        notes = bench.runtime.safety.save(
            plan,
            self.target(bench, plan),
            at=context["dag_run"].run_after,
            wanted=bench.request.save_first,
        )
        return {"notes": list(notes)}


class LoadOperator(RestoreOperator):
    """Load the members into the target, beside what it holds."""

    ui_color = "#8a5a00"

    @override
    def run(self, bench: Bench, context: Context) -> dict[str, Any]:
        fetched = self.fetched(context)
        plan = fetched.plan
        notes = bench.runtime.restores.load(plan, fetched, self.target(bench, plan))
        return {"notes": list(notes)}


class CompareOperator(RestoreOperator):
    """Compare what was loaded with what the manifest says was backed up."""

    ui_color = "#2d6a31"

    @override
    def run(self, bench: Bench, context: Context) -> dict[str, Any]:
        plan = self.fetched(context).plan
        notes = bench.runtime.restores.compare(plan, self.target(bench, plan))
        return {"notes": list(notes)}


class PublishOperator(RestoreOperator):
    """Put the compared copy in its final place."""

    ui_color = "#a3461c"

    @override
    def run(self, bench: Bench, context: Context) -> dict[str, Any]:
        fetched = self.fetched(context)
        plan = fetched.plan
        notes = bench.runtime.restores.publish(plan, fetched, self.target(bench, plan))
        return {"notes": list(notes)}


class ExamineOperator(RestoreOperator):
    """Ask the restored copy, in its final place, whether it works and how quickly."""

    ui_color = "#2d6a31"

    @override
    def run(self, bench: Bench, context: Context) -> dict[str, Any]:
        plan = self.fetched(context).plan
        notes = bench.runtime.restores.examine(
            plan,
            self.target(bench, plan),
            questions=bench.runtime.questions(plan.source),
            speed=bench.request.target != "sandbox",
        )
        bench.runtime.agreement.note(together(context), plan, bench.runtime.restores.fetched(plan))
        return {"notes": list(notes)}


class RecordOperator(RestoreOperator):
    """Record the restore whatever became of it, then fail if it failed."""

    ui_color = "#1f4e79"
    approval = APPROVE  # the task that somebody answered

    @override
    def run(self, bench: Bench, context: Context) -> dict[str, Any]:
        if bench.request.dry_run:
            raise AirflowSkipException("Dry run: there is nothing to record.")
        plan, ti = self.plan, context["ti"]
        reports = self._reports(context)
        fetched = self.fetched(context) if "fetch" in reports else None
        plan = fetched.plan if fetched else plan
        failed = next((step for step in self._wanted if step not in reports), None)
        notes = [note for report in reports.values() for note in report.get("notes", ())]
        approval = ti.xcom_pull(task_ids=self.approval)
        refusal = ""
        if failed in STEPS and approval is None:
            refusal = ti.xcom_pull(task_ids=self.approval, key=REFUSAL) or "it was not approved"
        if approval and approval["approved_by"]:
            notes.insert(0, f"Approved by {approval['approved_by']}: plan {approval['sha256']}")
        outcome = "restored" if failed is None else refusal or f"failed in {failed}"
        bench.runtime.restores.record(
            plan,
            actor=actor(context),
            target=bench.request.place,
            started_at=context["dag_run"].start_date or context["dag_run"].run_after,
            seconds={step: report["seconds"] for step, report in reports.items()},
            fetched=fetched,
            outcome=outcome,
            notes=tuple(notes),
        )
        if refusal:
            raise AirflowFailException(f"{plan.source} was not restored: {refusal}.")
        if failed is not None:
            raise AirflowFailException(
                f"The restore of {plan.source} failed in {failed}, and has been recorded as "
                f"failed; the log of {failed}, or of the first red task before it, says why."
            )
        return {"backup_id": plan.backup_id}

    @property
    def _wanted(self) -> tuple[str, ...]:
        return (*CHECKS, *STEPS) if self.checks else STEPS

    def _reports(self, context: Context) -> dict[str, dict[str, Any]]:
        pulled = {step: self.report(context, step) for step in self._wanted}
        return {step: report for step, report in pulled.items() if report}


class AgreeOperator(BaseOperator):
    """Hold what was restored together to each other: do the tiers agree?"""

    ui_color = "#2d6a31"
    ui_fgcolor = "#ffffff"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"doc_md": type(self).__doc__, **kwargs})

    def execute(self, context: Context) -> dict[str, Any]:
        """Return what was found; fail where they do not agree."""
        if context["params"].get("dry_run"):
            raise AirflowSkipException("Dry run: nothing was restored.")
        with translated():
            agreement, run = NeurocaHook().runtime.agreement, together(context)
            notes = agreement.require(run)
            agreement.clear(run)
        for note in notes:
            self.log.info("%s", note)
        return {"notes": list(notes)}


class CleanUpOperator(RestoreOperator):
    """Leave nothing of this restore in the spool, and no sandbox unless it is to be kept."""

    ui_color = "#5f6368"

    @override
    def execute(self, context: Context) -> dict[str, Any]:
        """Stop the sandbox, then clear the spool; the second also where the first fails."""
        from neuroca_backup import sandbox  # noqa: PLC0415 - only the task needs it

        with translated():
            runtime = NeurocaHook().runtime
            restore = restore_id(context, self.received["source"])
            root = runtime.spool.sandbox(restore)
            try:
                if context["params"].get("keep_sandbox"):
                    self.log.warning("The sandbox below %s is kept; stop it when done", root)
                else:
                    sandbox.stop(root)
            finally:
                runtime.restores.clear(restore)
        return {}
