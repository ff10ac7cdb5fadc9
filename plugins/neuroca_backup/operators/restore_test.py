"""The tasks of a restore test; each operator only places one service call."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException
from typing_extensions import override

from neuroca_backup.engines import RestoreTarget
from neuroca_backup.errors import PermanentError
from neuroca_backup.hooks.neuroca import NeurocaHook, translated
from neuroca_backup.model.restore_test import PASSED, RestoreTest, SourceTest
from neuroca_backup.model.tickets import FetchReport, RestorePlan
from neuroca_backup.operators.backup import run_set_id
from neuroca_backup.operators.restore import CompareOperator, PublishOperator
from neuroca_backup.operators.restore_request import RestoreRequest
from neuroca_backup.operators.restore_step import (
    SOURCE_GROUP,
    Bench,
    RestoreOperator,
    actor,
    restore_id,
)
from neuroca_backup.operators.restore_test_request import parse

if TYPE_CHECKING:
    from airflow.sdk import Context

    from neuroca_backup.services.restore_tests.choosing import Choice, Request

# What a source's tasks are called, in their order; of each there is a report when it succeeded.
TASKS = (
    *("sandbox", "preflight", "fetch", "load", "compare", "publish", "examine"),
    *("sample", "sanitise", "tear_down"),
)


class PlanTestOperator(BaseOperator):
    """Check the form and choose what is tested.

    Returns a list of orders, one a source, over which the group of the steps is mapped: its
    `source`, `component`, `plan`, or the `problem` for which there is none. A dry run returns none.
    """

    ui_color = "#1f4e79"
    ui_fgcolor = "#ffffff"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"doc_md": type(self).__doc__, **kwargs})

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Return the orders."""
        from neuroca_backup.services.restore_tests import choosing  # noqa: PLC0415 - a task's own

        with translated():
            runtime = NeurocaHook().runtime
            request = parse(dict(context["params"]), runtime.settings)
            choices = choosing.choose(
                request,
                runtime.settings,
                runtime.stores,
                newest_set=lambda one: runtime.set_to_restore("latest", component=one),
            )
            choosing.require_keepable(request, runtime.settings, choices)
            orders = [_order(runtime.testing, choice, context) for choice in choices]
        for order in orders:
            plan = order["plan"]
            told = f"{plan['backup_id']}, {plan['plain_size']:,} bytes" if plan else "no backup"
            self.log.info("%s: %s%s", order["source"], told, f". {order['problem']}" * (not plan))
        if context["params"].get("dry_run"):
            self.log.info("A dry run: nothing is started, nothing is fetched")
            return []
        return orders


def _order(testing: Any, choice: Choice, context: Context) -> dict[str, Any]:
    from neuroca_backup.services.restore_tests.running import planned  # noqa: PLC0415 - as above

    order: dict[str, Any] = {
        "source": choice.source,
        "component": choice.component.value,
        "plan": None,
        "problem": "",
        "notes": list(choice.notes),
        "to": "",
    }
    try:
        plan = planned(testing, choice, restore_id(context, choice.source))
    except PermanentError as error:
        return {**order, "problem": str(error)}
    return {**order, "plan": plan.to_json()}


class TestStep(RestoreOperator):
    """A step of one source's test: a step of a restore whose target is the sandbox of the test."""

    __test__ = False  # no test of pytest's

    @override
    def bench(self, context: Context) -> Bench:
        hook = NeurocaHook()
        request = RestoreRequest(source=self.received["source"])
        return Bench(runtime=hook.runtime, hook=hook, request=request)

    @override
    def target(self, bench: Bench, plan: RestorePlan) -> RestoreTarget:
        return bench.runtime.testing.target(plan, self.asked(bench).sandbox)

    def asked(self, bench: Bench) -> Request:
        """Return what the form asks for."""
        return parse(dict(self._params), bench.runtime.settings)

    @override
    def execute(self, context: Context) -> dict[str, Any]:
        self._params: dict[str, Any] = dict(context["params"])
        return super().execute(context)


class StartSandboxOperator(TestStep):
    """Start the throwaway server of a source, or find the isolated one."""

    ui_color = "#5f6368"

    @override
    def run(self, bench: Bench, context: Context) -> dict[str, Any]:
        notes = bench.runtime.testing.start(self.plan, self.asked(bench).sandbox)
        return {"notes": list(notes)}


class PreflightOperator(TestStep):
    """Refuse what cannot work: no room, other versions, a server that holds data."""

    ui_color = "#2e6b9e"

    @override
    def run(self, bench: Bench, context: Context) -> dict[str, Any]:
        plan = self.plan
        notes = bench.runtime.testing.preflight(plan, self.target(bench, plan))
        return {"notes": list(notes)}


class FetchTestOperator(TestStep):
    """Fetch, unseal and decompress the members into the spool, every byte checked."""

    ui_color = "#5b3f8c"

    @override
    def run(self, bench: Bench, context: Context) -> dict[str, Any]:
        fetched = bench.runtime.restores.fetch(self.plan)
        return {"fetched": fetched.to_json(), "notes": list(fetched.fallbacks)}


class LoadTestOperator(TestStep):
    """Load the members into the sandbox."""

    ui_color = "#8a5a00"

    @override
    def run(self, bench: Bench, context: Context) -> dict[str, Any]:
        fetched = self.fetched(context)
        plan, kind = fetched.plan, self.asked(bench).sandbox
        notes = bench.runtime.testing.load(plan, fetched, self.target(bench, plan), kind)
        return {"notes": list(notes)}


class CompareTestOperator(TestStep, CompareOperator):
    """Compare what was loaded with what the manifest says was backed up."""


class PublishTestOperator(TestStep, PublishOperator):
    """Put the compared copy in its final place."""


class ExamineTestOperator(TestStep):
    """Ask the restored copy whether it works, by our questions and those of backup.yaml."""

    ui_color = "#2d6a31"

    @override
    def run(self, bench: Bench, context: Context) -> dict[str, Any]:
        plan = self.fetched(context).plan
        notes = bench.runtime.testing.examine(plan, self.target(bench, plan))
        return {"notes": list(notes)}


class SampleOperator(TestStep):
    """Read some records of every part of the copy."""

    ui_color = "#2d6a31"

    @override
    def run(self, bench: Bench, context: Context) -> dict[str, Any]:
        plan, testing = self.fetched(context).plan, bench.runtime.testing
        target = self.target(bench, plan)
        manifest = bench.runtime.restores.fetched_manifest(plan)
        return {
            "records": testing.sample(plan, target),
            "versions": [manifest.dump.server_version, testing.version(plan, target)],
        }


class SanitiseOperator(TestStep):
    """Take personal data out of the copy by the rules of backup.yaml, and prove that it is gone.

    It is not tried again by itself: a second try could not see any more what the first replaced.
    """

    ui_color = "#7a3b69"

    @override
    def run(self, bench: Bench, context: Context) -> dict[str, Any]:
        plan, request = self.fetched(context).plan, self.asked(bench)
        done = bench.runtime.testing.sanitise(
            plan, self.target(bench, plan), wanted=request.sanitise
        )
        return {"sanitised": done.outcome, "notes": list(done.notes)}


class KeepOperator(TestStep):
    """Let people look at the sanitised copy for the hours of the form; end at once without any.

    It waits without a worker. Mark it as success to take the sandbox down earlier.
    """

    ui_color = "#a3461c"

    @override
    def run(self, bench: Bench, context: Context) -> dict[str, Any]:
        plan, request = self.fetched(context).plan, self.asked(bench)
        if request.keep:
            self._wait(bench, plan, request)
        return {"notes": ["The sandbox is not kept"]}

    def _wait(self, bench: Bench, plan: RestorePlan, request: Request) -> NoReturn:
        from airflow.providers.standard.triggers.temporal import (  # noqa: PLC0415 - imports much
            DateTimeTrigger,
        )

        until = datetime.now(UTC) + request.keep
        for note in bench.runtime.testing.seen_at(plan, request.sandbox, until):
            self.log.warning("%s", note)
        self.defer(
            trigger=DateTimeTrigger(moment=until),
            method_name="ended",
            timeout=request.keep + timedelta(hours=1),
        )

    def ended(self, context: Context, event: Any = None) -> dict[str, Any]:
        """Say that the time is over."""
        del context, event
        return {"notes": ["The time is over: the sandbox is taken down"]}


class TearDownOperator(TestStep):
    """Leave nothing of this source's test: no process, no file, no port, whatever happened."""

    ui_color = "#5f6368"

    @override
    def run(self, bench: Bench, context: Context) -> dict[str, Any]:
        if self.received["plan"] is None:
            return {"notes": ["There was no plan, and so no sandbox"]}
        # A load that was killed has no report; what is loaded was fetched before.
        loaded = self.report(context, "preflight") is not None
        fetched = self.report(context, "fetch")
        plan = FetchReport.from_json(fetched["fetched"]).plan if fetched else self.plan
        notes = bench.runtime.testing.tear_down(
            plan, self.asked(bench).sandbox, loaded=loaded and fetched is not None
        )
        return {"notes": list(notes)}


class RecordTestOperator(BaseOperator):
    """Record the test in every store and the catalog, whatever became of it; fail if it failed.

    Args:
        orders: What the task `plan` decided.
    """

    template_fields = ("orders",)
    ui_color = "#1f4e79"
    ui_fgcolor = "#ffffff"

    def __init__(self, *, orders: Any, **kwargs: Any) -> None:
        self.orders = orders
        super().__init__(**{"doc_md": type(self).__doc__, **kwargs})

    def execute(self, context: Context) -> dict[str, Any]:
        """Return the test's id, its success rate, and where the reports are."""
        if self.orders is None:
            raise AirflowFailException("There is no plan: the task plan failed, see its log.")
        if context["params"].get("dry_run"):
            return {"notes": ["Dry run: there is nothing to record"]}
        with translated():
            runtime = NeurocaHook().runtime
            request = parse(dict(context["params"]), runtime.settings)
            started = context["dag_run"].start_date or context["dag_run"].run_after
            sources = [
                _result(order, index, context, started=started)
                for index, order in enumerate(self.orders)
            ]
            test = RestoreTest.model_validate(
                {
                    "test_id": run_set_id(context),
                    "actor": actor(context),
                    "sandbox": request.sandbox,
                    "started_at": started,
                    "finished_at": datetime.now(UTC),
                    "keep_hours": request.keep.total_seconds() / 3600,
                    "sources": tuple(sources),
                }
            )
            places = runtime.test_records.record(test)
        self.log.info("%s", test.markdown())
        if not test.passed:
            failed = [f"{one.source} {one.outcome}" for one in test.sources if not one.passed]
            raise AirflowFailException(
                f"The restore test did not pass: {', '.join(failed) or 'nothing was tested'}. It "
                f"is recorded at {places[0]}; the log of each red task says why."
            )
        return {
            "test_id": test.test_id,
            "success_rate": test.success_rate,
            "reports": list(places),
        }


def _result(
    order: dict[str, Any], index: int, context: Context, *, started: datetime
) -> SourceTest:
    """Return what became of one source, from what its tasks have reported."""
    ti: Any = context["ti"]
    pulled = {
        task: ti.xcom_pull(task_ids=f"{SOURCE_GROUP}.{task}", map_indexes=index) for task in TASKS
    }
    reports = {task: found for task, found in pulled.items() if found}
    fetched = FetchReport.from_json(reports["fetch"]["fetched"]) if "fetch" in reports else None
    plan = (
        fetched.plan if fetched else RestorePlan.from_json(order["plan"]) if order["plan"] else None
    )
    failed = next((task for task in TASKS if task not in reports), None)
    outcome, problem = PASSED, ""
    if plan is None:
        outcome, problem = "not tested", order["problem"]
    elif failed is not None:
        outcome, problem = f"failed in {failed}", f"The log of the task {failed} says why"
    versions = reports.get("sample", {}).get("versions", ["", ""])
    from neuroca_backup.services.restore_tests.running import stores_of  # noqa: PLC0415 - as above

    return SourceTest(
        restore_id=restore_id(context, order["source"]),
        component=order["component"],
        source=order["source"],
        backup_id=plan.backup_id if plan else "",
        taken_at=datetime.fromisoformat(plan.taken_at) if plan else None,
        engine=plan.engine if plan else "",
        source_version=versions[0],
        server_version=versions[1],
        stores=stores_of(fetched),
        outcome=outcome,
        problem=problem,
        started_at=started,
        finished_at=datetime.now(UTC),
        seconds={task: found["seconds"] for task, found in reports.items()},
        size=fetched.size if fetched else 0,
        records=reports.get("sample", {}).get("records", 0),
        sanitised=reports.get("sanitise", {}).get("sanitised", "not reached"),
        removed="tear_down" in reports or plan is None,
        notes=(
            *order["notes"],
            *(note for found in reports.values() for note in found.get("notes", ())),
        ),
    )
