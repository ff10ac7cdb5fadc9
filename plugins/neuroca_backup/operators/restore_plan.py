"""The first task of a restore: the form checked, the backups chosen, and what will be done."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from neuroca_backup.errors import PermanentError
from neuroca_backup.hooks.neuroca import translated
from neuroca_backup.model.identity import Component
from neuroca_backup.model.retrieval import RetrievalTier
from neuroca_backup.model.tickets import RestorePlan
from neuroca_backup.operators.restore_step import Bench, restore_id

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow.sdk import Context

    from neuroca_backup.services.proposal import Item, Proposal


class PlanOperator(BaseOperator):
    """Check the form and choose the backup, or those of a whole set.

    Returns a list of orders, one a source, over which the groups of the steps are mapped: its
    `source`, its `plan`, where it goes `to`, how long it will take, what has to come from an
    archive first (`retrieval`), and, where there is no plan, the `problem`. Of a set the other
    sources go on without it.
    """

    ui_color = "#1f4e79"
    ui_fgcolor = "#ffffff"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"doc_md": type(self).__doc__, **kwargs})

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Return the orders."""
        with translated():
            bench = Bench.of(context)
            orders = list(_orders(bench, context))
            for line in proposal_of(bench, orders).lines():
                self.log.info("%s", line)
            return orders


def _orders(bench: Bench, context: Context) -> Iterator[dict[str, Any]]:
    request, runtime = bench.request, bench.runtime
    component = Component(request.component or runtime.component(request.source))
    if request.whole is None:
        yield _order(bench, context, request.source, component, request.backup_id)
        return
    found = runtime.set_to_restore(request.whole, component=component)
    request.require_confirmed(found.set_id)
    for source, member in found.members.items():
        try:
            yield _order(bench, context, source, found.component, member.backup_id)
        except PermanentError as error:
            yield _problem(source, str(error))
    for source in found.missing:
        yield _problem(
            source, f"The set {found.set_id} has no backup of {source}. Choose an older one."
        )


def _order(
    bench: Bench, context: Context, source: str, component: Component, backup_id: str | None
) -> dict[str, Any]:
    from neuroca_backup.services.forecast import forecast  # noqa: PLC0415 - only the task needs it

    plan = bench.runtime.restores.plan(
        component=component,
        source=source,
        restore_id=restore_id(context, source),
        backup_id=backup_id,
        before=bench.request.before,
        until=bench.request.until,
        only=bench.request.only,
        prefer=bench.request.prefer,
        allow_older=bench.request.allow_older,
    )
    return {
        "source": source,
        "plan": plan.to_json(),
        "to": bench.destination(plan),
        "forecast": asdict(forecast(bench.runtime.catalog, source, plan.plain_size)),
        "retrieval": bench.runtime.retrievals.look(plan).words(
            bench.request.tier or RetrievalTier.STANDARD
        ),
        "problem": "",
    }


def _problem(source: str, problem: str) -> dict[str, Any]:
    return {
        "source": source,
        "plan": None,
        "to": "",
        "forecast": None,
        "retrieval": "",
        "problem": problem,
    }


def proposal_of(bench: Bench, orders: Sequence[dict[str, Any]]) -> Proposal:
    """Return what the run is going to do, from what the task `plan` has decided."""
    from neuroca_backup.services.forecast import Forecast  # noqa: PLC0415 - only tasks need it
    from neuroca_backup.services.proposal import Item  # noqa: PLC0415 - as above

    items = [
        Item(source=order["source"], problem=order["problem"])
        if order["plan"] is None
        else _item(
            bench,
            RestorePlan.from_json(order["plan"]),
            to=order["to"],
            forecast=Forecast(**order["forecast"]),
            retrieval=order.get("retrieval", ""),
        )
        for order in orders
    ]
    return _proposal(bench, items)


def planned_again(bench: Bench, orders: Sequence[dict[str, Any]]) -> Proposal:
    """Return what the same backups would mean now: planned anew from the stores and connections.

    Raises:
        BackupError: One of them cannot be planned any more.
    """
    from neuroca_backup.services.proposal import Item  # noqa: PLC0415 - only the task needs it

    items: list[Item] = []
    for order in orders:
        if order["plan"] is None:
            items.append(Item(source=order["source"], problem=order["problem"]))
            continue
        before = RestorePlan.from_json(order["plan"])
        plan = bench.runtime.restores.plan(
            component=Component(before.component),
            source=before.source,
            restore_id=before.restore_id,
            backup_id=before.backup_id,
            until=bench.request.until,
            only=before.only,
            prefer=bench.request.prefer,
            allow_older=bench.request.allow_older,
        )
        items.append(_item(bench, plan, to=bench.destination(plan)))
    return _proposal(bench, items)


def _item(bench: Bench, plan: RestorePlan, **words: Any) -> Item:
    from neuroca_backup import engines  # noqa: PLC0415 - only tasks need it
    from neuroca_backup.services.proposal import Item, saved_words  # noqa: PLC0415 - as above

    saved = saved_words(
        replaces=bench.request.in_place,
        keeps=engines.named(plan.engine).keeps,
        wanted=bench.request.save_first,
    )
    return Item(source=plan.source, plan=plan, saved=saved, **words)


def _proposal(bench: Bench, items: Sequence[Item]) -> Proposal:
    from neuroca_backup.services.proposal import Proposal  # noqa: PLC0415 - only tasks need it

    planned = next((item.plan for item in items if item.plan is not None), None)
    services: tuple[str, ...] = ()
    if planned is not None and bench.request.in_place:
        quiesce = bench.runtime.quiesce(Component(planned.component))
        services = tuple(one.name for one in quiesce.settings)
    return Proposal(items=tuple(items), services=services)
