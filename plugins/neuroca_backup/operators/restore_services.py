"""The services that use what is restored in place: stopped for it, and started again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException
from typing_extensions import override

from neuroca_backup.hooks.neuroca import NeurocaHook, translated
from neuroca_backup.model.identity import Component
from neuroca_backup.operators.restore_step import SERVICES, Bench, RestoreOperator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from neuroca_backup.services.quiesce import Quiesce

_STATES = "states"


class ServicesOperator(BaseOperator):
    """Note which services run, before any is stopped; what ran is what is started again.

    The states are kept beyond this task's end: run again while services are stopped, it still
    gives those of before.
    """

    template_fields: Sequence[str] = ("orders",)
    ui_color = "#7a5195"
    ui_fgcolor = "#ffffff"

    def __init__(self, *, orders: Any, **kwargs: Any) -> None:
        self.orders = orders
        super().__init__(**{"doc_md": type(self).__doc__, **kwargs})

    def execute(self, context: Context) -> dict[str, Any]:
        """Return the component and the states by service; none where nothing is in place."""
        with translated():
            bench = Bench.of(context)
            planned = next((one["plan"] for one in self.orders if one["plan"] is not None), None)
            if planned is None or not bench.request.in_place:
                self.log.info("No service is stopped: nothing is replaced in place")
                return {"component": "", "before": {}}
            before = bench.runtime.quiesce(Component(planned["component"])).look()
        from neuroca_backup.services.quiesce import STOPPED  # noqa: PLC0415 - only the task's

        store: Any = context["task_state_store"]
        earlier: dict[str, str] = store.get(_STATES) or {}
        before = {
            name: earlier.get(name, state) if state == STOPPED else state
            for name, state in before.items()
        }
        if before:
            store.set(_STATES, before)
        for name, state in before.items():
            self.log.info("%s is %s", name, state)
        return {"component": planned["component"], "before": before}


class StopOperator(RestoreOperator):
    """Stop what uses the data, once all that is to be loaded has been fetched and checked."""

    ui_color = "#7a5195"

    @override
    def run(self, bench: Bench, context: Context) -> dict[str, Any]:
        if not bench.request.in_place:
            return {"notes": []}
        quiesce, before = _noted(bench.runtime, context)
        if quiesce is None:
            raise AirflowFailException("Nobody noted which services run: clear the task services.")
        return {"notes": list(quiesce.stop(before))}


class StartServicesOperator(BaseOperator):
    """Start again what ran before, whatever became of the restore."""

    ui_color = "#7a5195"
    ui_fgcolor = "#ffffff"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"doc_md": type(self).__doc__, **kwargs})

    def execute(self, context: Context) -> None:
        """Start them."""
        with translated():
            quiesce, before = _noted(NeurocaHook().runtime, context)
            if quiesce is None:
                self.log.info("No service was stopped")
                return
            for note in quiesce.resume(before):
                self.log.info("%s", note)


def _noted(runtime: Any, context: Context) -> tuple[Quiesce | None, dict[str, str]]:
    """Return the services that were noted before any was stopped, and their states then."""
    ti: Any = context["ti"]
    noted: dict[str, Any] | None = ti.xcom_pull(task_ids=SERVICES)
    if not noted or not noted["component"]:
        return None, {}
    return runtime.quiesce(Component(noted["component"])), noted["before"]
