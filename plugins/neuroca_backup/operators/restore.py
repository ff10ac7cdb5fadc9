"""The steps of a restore as tasks. Each operator only places one service call.

The plan travels by XCom; the target is resolved anew in every task, so no address or password
is ever stored.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException
from typing_extensions import override

from neuroca_backup.hooks.neuroca import NeurocaHook, translated
from neuroca_backup.model.tickets import FetchReport, RestorePlan
from neuroca_backup.operators.backup import run_set_id
from neuroca_backup.operators.restore_request import RestoreRequest

if TYPE_CHECKING:
    from pathlib import Path

    from airflow.sdk import Context

    from neuroca_backup.engines import RestoreTarget
    from neuroca_backup.runtime import Runtime

# Who keeps a sandbox to look at has looked by then; it holds production data in clear.
STALE_SANDBOX = timedelta(days=3)
STEPS = ("preflight", "fetch", "load", "compare", "publish")


@dataclass(frozen=True, slots=True)
class Bench:
    """What a step works with."""

    runtime: Runtime
    hook: NeurocaHook
    request: RestoreRequest
    restore_id: str

    @classmethod
    def of(cls, context: Context) -> Bench:
        """Build it from the run's form."""
        hook = NeurocaHook()
        runtime = hook.runtime
        return cls(
            runtime=runtime,
            hook=hook,
            request=RestoreRequest.parse(dict(context["params"]), runtime.settings),
            restore_id=restore_id(context),
        )

    @property
    def sandbox_root(self) -> Path:
        """Where this run's throwaway servers are."""
        return self.runtime.spool.sandbox(self.restore_id)

    @property
    def target(self) -> RestoreTarget:
        """The server to restore to, refused if it may not be."""
        return self.request.resolve(self.runtime.settings, self.hook.connections, self.sandbox_root)


def restore_id(context: Context) -> str:
    """Return the id of the run's restore, the same on every retry."""
    return f"restore-{run_set_id(context)}"


class RestoreOperator(BaseOperator):
    """A step of the restore; subclasses say in `run` which call it is."""

    ui_fgcolor = "#ffffff"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"doc_md": type(self).__doc__, **kwargs})

    def execute(self, context: Context) -> dict[str, Any]:
        """Call the service; return its report with how long it took, in seconds."""
        started = time.monotonic()
        with translated():
            report = self.run(Bench.of(context), context)
        for note in report.get("notes", ()):
            self.log.info("%s", note)
        return {**report, "seconds": round(time.monotonic() - started, 3)}

    def run(self, bench: Bench, context: Context) -> dict[str, Any]:
        """Do this step's one call."""
        raise NotImplementedError

    def plan(self, context: Context) -> RestorePlan:
        """Return what the task `plan` decided."""
        report = context["ti"].xcom_pull(task_ids="plan")
        if not report:
            raise AirflowFailException("There is no plan: the task plan failed, see its log.")
        return RestorePlan.from_json(report["plan"])

    def fetched(self, context: Context) -> FetchReport:
        """Return what the task `fetch` brought."""
        report = context["ti"].xcom_pull(task_ids="fetch")
        if not report:
            raise AirflowFailException("Nothing was fetched: clear the task fetch.")
        return FetchReport.from_json(report["fetched"])


class PlanOperator(RestoreOperator):
    """Check the form and choose the backup."""

    ui_color = "#1f4e79"

    @override
    def run(self, bench: Bench, context: Context) -> dict[str, Any]:
        plan = bench.runtime.restores.plan(
            component=bench.runtime.component(bench.request.source),
            source=bench.request.source,
            restore_id=bench.restore_id,
            backup_id=bench.request.backup_id,
            before=bench.request.before,
            prefer=bench.request.prefer,
        )
        return {"plan": plan.to_json()}


class SandboxOperator(RestoreOperator):
    """Start the throwaway server, where the target is one."""

    ui_color = "#5f6368"

    @override
    def run(self, bench: Bench, context: Context) -> dict[str, Any]:
        from neuroca_backup import sandbox  # noqa: PLC0415 - only the task needs it

        if bench.request.target != "sandbox":
            return {"notes": [f"No sandbox is needed: the target is {bench.request.target}"]}
        spool = bench.runtime.spool
        spool.require_free(0)  # creates it private, which the sandbox would not
        for forgotten in spool.stale_sandboxes(older_than=STALE_SANDBOX):
            self.log.warning("Stopping %s, which was kept and forgotten", forgotten.name)
            sandbox.stop(forgotten)
        kind = bench.request.sandbox_kind(bench.runtime.settings)
        sandbox.start(bench.sandbox_root, [kind])
        return {"notes": [f"A {kind} runs at {bench.target.endpoint.label}"]}


class PreflightOperator(RestoreOperator):
    """Refuse an impossible or forbidden restore before anything is touched."""

    ui_color = "#2e6b9e"

    @override
    def run(self, bench: Bench, context: Context) -> dict[str, Any]:
        notes = bench.runtime.restores.preflight(self.plan(context), bench.target)
        return {"notes": list(notes)}


class FetchOperator(RestoreOperator):
    """Fetch, unseal and decompress the members into the spool, every byte checked."""

    ui_color = "#5b3f8c"

    @override
    def run(self, bench: Bench, context: Context) -> dict[str, Any]:
        fetched = bench.runtime.restores.fetch(self.plan(context))
        return {"fetched": fetched.to_json()}


class LoadOperator(RestoreOperator):
    """Load the members into the target, beside what it holds."""

    ui_color = "#8a5a00"

    @override
    def run(self, bench: Bench, context: Context) -> dict[str, Any]:
        plan, fetched = self.plan(context), self.fetched(context)
        notes = bench.runtime.restores.load(plan, fetched, bench.target)
        return {"notes": list(notes)}


class CompareOperator(RestoreOperator):
    """Compare what was loaded with what the manifest says was backed up."""

    ui_color = "#2d6a31"

    @override
    def run(self, bench: Bench, context: Context) -> dict[str, Any]:
        notes = bench.runtime.restores.compare(self.plan(context), bench.target)
        return {"notes": list(notes)}


class PublishOperator(RestoreOperator):
    """Put the compared copy in its final place."""

    ui_color = "#a3461c"

    @override
    def run(self, bench: Bench, context: Context) -> dict[str, Any]:
        plan, fetched = self.plan(context), self.fetched(context)
        notes = bench.runtime.restores.publish(plan, fetched, bench.target)
        return {"notes": list(notes)}


class RecordOperator(RestoreOperator):
    """Record the restore whatever became of it, then fail if it failed."""

    ui_color = "#1f4e79"

    @override
    def run(self, bench: Bench, context: Context) -> dict[str, Any]:
        plan = self.plan(context)
        reports = self._reports(context)
        failed = next((step for step in STEPS if step not in reports), None)
        bench.runtime.restores.record(
            plan,
            actor=_actor(context),
            target=bench.request.target_connection or bench.request.target,
            started_at=context["dag_run"].start_date or context["dag_run"].run_after,
            seconds={step: report["seconds"] for step, report in reports.items()},
            fetched=self.fetched(context) if "fetch" in reports else None,
            outcome="restored" if failed is None else f"failed in {failed}",
            notes=tuple(note for report in reports.values() for note in report.get("notes", ())),
        )
        if failed is not None:
            raise AirflowFailException(
                f"The restore failed in {failed}, and has been recorded as failed; the log of "
                f"{failed}, or of the first red task before it, says why."
            )
        return {"backup_id": plan.backup_id}

    @staticmethod
    def _reports(context: Context) -> dict[str, dict[str, Any]]:
        pulled = {step: context["ti"].xcom_pull(task_ids=step) for step in STEPS}
        return {step: report for step, report in pulled.items() if report}


class CleanUpOperator(BaseOperator):
    """Leave nothing of this restore in the spool, and no sandbox unless it is to be kept."""

    ui_color = "#5f6368"
    ui_fgcolor = "#ffffff"

    def execute(self, context: Context) -> None:
        """Stop the sandbox, then clear the spool; the second also where the first fails."""
        from neuroca_backup import sandbox  # noqa: PLC0415 - only the task needs it

        with translated():
            runtime = NeurocaHook().runtime
            restore = restore_id(context)
            root = runtime.spool.sandbox(restore)
            try:
                if context["params"].get("keep_sandbox"):
                    self.log.warning("The sandbox below %s is kept; stop it when done", root)
                else:
                    sandbox.stop(root)
            finally:
                runtime.restores.clear(restore)


def _actor(context: Context) -> str:
    run: Any = context["dag_run"]
    return run.triggering_user_name or f"airflow ({run.run_type})"
