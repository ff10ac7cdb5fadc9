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

from neuroca_backup.errors import PermanentError
from neuroca_backup.hooks.neuroca import NeurocaHook, translated
from neuroca_backup.model.tickets import FetchReport, RestorePlan
from neuroca_backup.operators.backup import run_set_id
from neuroca_backup.operators.restore_request import RestoreRequest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow.sdk import Context
    from airflow.sdk.definitions._internal.expandinput import MappedArgument
    from airflow.sdk.definitions.xcom_arg import XComArg

    from neuroca_backup.engines import RestoreTarget
    from neuroca_backup.model.identity import Component
    from neuroca_backup.runtime import Runtime

# Who keeps a sandbox to look at has looked by then; it holds production data in clear.
STALE_SANDBOX = timedelta(days=3)
STEPS = ("preflight", "fetch", "save", "load", "compare", "publish")


@dataclass(frozen=True, slots=True)
class Bench:
    """What a step works with."""

    runtime: Runtime
    hook: NeurocaHook
    request: RestoreRequest

    @classmethod
    def of(cls, context: Context) -> Bench:
        """Build it from the run's form."""
        hook = NeurocaHook()
        runtime = hook.runtime
        request = RestoreRequest.parse(dict(context["params"]), runtime.settings)
        return cls(runtime=runtime, hook=hook, request=request)

    def target(self, plan: RestorePlan) -> RestoreTarget:
        """The server to restore to, refused if it may not be."""
        return self.request.resolve(
            self.runtime.settings,
            self.hook.connections,
            self.runtime.spool.sandbox(plan.restore_id),
            source=plan.source,
            engine=plan.engine,
        )


def restore_id(context: Context, source: str) -> str:
    """Return the id of one source's restore in this run, the same on every retry."""
    return f"restore-{run_set_id(context)}-{source}"


class PlanOperator(BaseOperator):
    """Check the form and choose the backup, or those of a whole set.

    Returns a list of orders, one a source, over which the group of the steps is mapped: its
    `source`, its `plan`, and, where there is no plan, the `problem`. Of a set the other sources go
    on without it.
    """

    ui_color = "#1f4e79"
    ui_fgcolor = "#ffffff"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"doc_md": type(self).__doc__, **kwargs})

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Return the orders."""
        with translated():
            bench = Bench.of(context)
            if bench.request.set_id is None:
                source = bench.request.source
                component = bench.runtime.component(source)
                return [self._order(bench, context, source, component, bench.request.backup_id)]
            return list(self._orders_of_set(bench, context, bench.request.set_id))

    def _orders_of_set(
        self, bench: Bench, context: Context, wanted: str
    ) -> Iterator[dict[str, Any]]:
        request, runtime = bench.request, bench.runtime
        component = runtime.component(request.source)
        found = runtime.set_to_restore(wanted, component=component)
        request.require_confirmed(found.set_id)
        self.log.info(
            "The set %s of %s: %s", found.set_id, found.component, ", ".join(found.sources)
        )
        for source, member in found.members.items():
            try:
                yield self._order(bench, context, source, found.component, member.backup_id)
            except PermanentError as error:
                self.log.error("%s: %s", source, error)  # noqa: TRY400 - its own task raises it
                yield {"source": source, "plan": None, "problem": str(error)}
        for source in found.missing:
            problem = f"The set {found.set_id} has no backup of {source}. Choose an older one."
            self.log.error("%s", problem)
            yield {"source": source, "plan": None, "problem": problem}

    def _order(
        self,
        bench: Bench,
        context: Context,
        source: str,
        component: Component,
        backup_id: str | None,
    ) -> dict[str, Any]:
        plan = bench.runtime.restores.plan(
            component=component,
            source=source,
            restore_id=restore_id(context, source),
            backup_id=backup_id,
            before=bench.request.before,
            until=bench.request.until,
            only=bench.request.only,
            prefer=bench.request.prefer,
        )
        self.log.info("%s from %s", plan.backup_id, ", ".join(plan.stores))
        return {"source": source, "plan": plan.to_json(), "problem": ""}


class RestoreOperator(BaseOperator):
    """A step of one source's restore; subclasses say in `run` which call it is.

    Args:
        order: What the task `plan` decided for this source.
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
            report = self.run(Bench.of(context), context)
        for note in report.get("notes", ()):
            self.log.info("%s", note)
        return {**report, "seconds": round(time.monotonic() - started, 3)}

    def run(self, bench: Bench, context: Context) -> dict[str, Any]:
        """Do this step's one call."""
        raise NotImplementedError

    @property
    def received(self) -> dict[str, Any]:
        """What the task `plan` decided for this source."""
        if not isinstance(self.order, dict):
            raise AirflowFailException("There is no plan: the task plan failed, see its log.")
        return self.order

    @property
    def plan(self) -> RestorePlan:
        """What is restored; raises where it could not be planned."""
        if self.received["plan"] is None:
            raise AirflowFailException(self.received["problem"])
        return RestorePlan.from_json(self.received["plan"])

    def report(self, context: Context, step: str) -> dict[str, Any] | None:
        """Return what a step of the same source has reported, or None if it has not succeeded."""
        ti: Any = context["ti"]
        found: dict[str, Any] | None = ti.xcom_pull(
            task_ids=self.beside(step), map_indexes=ti.map_index
        )
        return found

    def beside(self, step: str) -> str:
        """Return the id of another step's task in the group of this one."""
        return f"{self.task_id.rpartition('.')[0]}.{step}"

    def fetched(self, context: Context) -> FetchReport:
        """Return what the task `fetch` brought."""
        report = self.report(context, "fetch")
        if not report:
            raise AirflowFailException("Nothing was fetched: clear the task fetch.")
        return FetchReport.from_json(report["fetched"])


class SandboxOperator(RestoreOperator):
    """Start the throwaway server, where the target is one."""

    ui_color = "#5f6368"

    @override
    def run(self, bench: Bench, context: Context) -> dict[str, Any]:
        from neuroca_backup import sandbox  # noqa: PLC0415 - only the task needs it
        from neuroca_backup.services import targets  # noqa: PLC0415 - as above

        if bench.request.target != "sandbox":
            return {"notes": [f"No sandbox is needed: the target is {bench.request.target}"]}
        if self.received["plan"] is None:
            return {"notes": ["No sandbox is needed: there is no plan"]}
        if self._restored(context):
            # Clearing one source of a set starts this task again for all of them.
            return {"notes": ["No sandbox is needed: this source was restored already"]}
        plan, spool = self.plan, bench.runtime.spool
        spool.require_free(0)  # creates it private, which the sandbox would not
        bench.runtime.restores.end_forgotten(older_than=STALE_SANDBOX)
        kind = targets.sandbox_kind(plan.engine)
        sandbox.start(spool.sandbox(plan.restore_id), [kind])
        return {"notes": [f"A {kind} runs at {bench.target(plan).endpoint.label}"]}

    def _restored(self, context: Context) -> bool:
        """Return whether the restore of this source has come to its end, and is not repeated."""
        ti: Any = context["ti"]
        record = self.beside("record")
        states: dict[str, dict[str, Any]] = ti.get_task_states(
            dag_id=ti.dag_id, map_index=ti.map_index, task_ids=[record], run_ids=[ti.run_id]
        )
        return "success" in states.get(ti.run_id, {}).values()


class PreflightOperator(RestoreOperator):
    """Refuse an impossible or forbidden restore before anything is touched."""

    ui_color = "#2e6b9e"

    @override
    def run(self, bench: Bench, context: Context) -> dict[str, Any]:
        notes = bench.runtime.restores.preflight(self.plan, bench.target(self.plan))
        return {"notes": list(notes)}


class FetchOperator(RestoreOperator):
    """Fetch, unseal and decompress the members into the spool, every byte checked."""

    ui_color = "#5b3f8c"

    @override
    def run(self, bench: Bench, context: Context) -> dict[str, Any]:
        fetched = bench.runtime.restores.fetch(self.plan)
        return {"fetched": fetched.to_json()}


class SaveOperator(RestoreOperator):
    """Back up what a restore in place would overwrite, where the engine keeps no copy itself."""

    ui_color = "#7a3b69"

    @override
    def run(self, bench: Bench, context: Context) -> dict[str, Any]:
        notes = bench.runtime.safety.save(
            self.plan,
            bench.target(self.plan),
            at=context["dag_run"].run_after,
            wanted=bench.request.save_first,
        )
        return {"notes": list(notes)}


class LoadOperator(RestoreOperator):
    """Load the members into the target, beside what it holds."""

    ui_color = "#8a5a00"

    @override
    def run(self, bench: Bench, context: Context) -> dict[str, Any]:
        plan, fetched = self.plan, self.fetched(context)
        notes = bench.runtime.restores.load(plan, fetched, bench.target(plan))
        return {"notes": list(notes)}


class CompareOperator(RestoreOperator):
    """Compare what was loaded with what the manifest says was backed up."""

    ui_color = "#2d6a31"

    @override
    def run(self, bench: Bench, context: Context) -> dict[str, Any]:
        notes = bench.runtime.restores.compare(self.plan, bench.target(self.plan))
        return {"notes": list(notes)}


class PublishOperator(RestoreOperator):
    """Put the compared copy in its final place."""

    ui_color = "#a3461c"

    @override
    def run(self, bench: Bench, context: Context) -> dict[str, Any]:
        plan, fetched = self.plan, self.fetched(context)
        notes = bench.runtime.restores.publish(plan, fetched, bench.target(plan))
        return {"notes": list(notes)}


class RecordOperator(RestoreOperator):
    """Record the restore whatever became of it, then fail if it failed."""

    ui_color = "#1f4e79"

    @override
    def run(self, bench: Bench, context: Context) -> dict[str, Any]:
        plan = self.plan
        reports = self._reports(context)
        failed = next((step for step in STEPS if step not in reports), None)
        bench.runtime.restores.record(
            plan,
            actor=_actor(context),
            target=bench.request.place,
            started_at=context["dag_run"].start_date or context["dag_run"].run_after,
            seconds={step: report["seconds"] for step, report in reports.items()},
            fetched=self.fetched(context) if "fetch" in reports else None,
            outcome="restored" if failed is None else f"failed in {failed}",
            notes=tuple(note for report in reports.values() for note in report.get("notes", ())),
        )
        if failed is not None:
            raise AirflowFailException(
                f"The restore of {plan.source} failed in {failed}, and has been recorded as "
                f"failed; the log of {failed}, or of the first red task before it, says why."
            )
        return {"backup_id": plan.backup_id}

    def _reports(self, context: Context) -> dict[str, dict[str, Any]]:
        pulled = {step: self.report(context, step) for step in STEPS}
        return {step: report for step, report in pulled.items() if report}


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


def _actor(context: Context) -> str:
    run: Any = context["dag_run"]
    return run.triggering_user_name or f"airflow ({run.run_type})"
