"""Waiting for an archive: a sensor that takes no worker's slot while AWS is at work."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator, PokeReturnValue

from neuroca_backup.hooks.neuroca import translated
from neuroca_backup.model.tickets import RestorePlan
from neuroca_backup.operators.restore_step import Bench, failed_check

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context
    from airflow.sdk.definitions._internal.expandinput import MappedArgument
    from airflow.sdk.definitions.xcom_arg import XComArg

# The slowest tier of the slowest archive takes two days.
LONGEST = timedelta(days=3)
_LOOK_AGAIN = timedelta(minutes=5)


class AwaitRetrievalSensor(BaseSensorOperator):
    """Ask for what lies only in an archive, and wait until it can be read.

    Where every member can be read at once it is over at the first look. Between two looks the task
    is rescheduled, so that no worker is held for hours; each look asks again for what was not asked
    for yet, which does no harm.

    Args:
        order: What the task `plan` decided for this source.
        look_again: The time between two looks.
    """

    template_fields: Sequence[str] = ("order",)
    ui_color = "#3b6e8c"
    ui_fgcolor = "#ffffff"

    def __init__(
        self,
        *,
        order: XComArg | MappedArgument | dict[str, Any],
        look_again: timedelta = _LOOK_AGAIN,
        **kwargs: Any,
    ) -> None:
        self.order = order
        super().__init__(
            **{
                "doc_md": type(self).__doc__,
                "map_index_template": "{{ task.order['source'] }}",
                "mode": "reschedule",
                "poke_interval": look_again.total_seconds(),
                "timeout": LONGEST.total_seconds(),
                **kwargs,
            }
        )

    def poke(self, context: Context) -> PokeReturnValue:
        """Return whether there is nothing left to wait for."""
        from neuroca_backup.services.retrieval import refusal  # noqa: PLC0415 - only the task

        ti: Any = context["ti"]
        order = self.order if isinstance(self.order, dict) else {}
        if not order.get("plan") or failed_check(context, ti.map_index) is not None:
            # `fetch` says why this source is not restored; archives are asked for nothing.
            return PokeReturnValue(is_done=True)
        with translated():
            bench = Bench.of(context)
            plan = RestorePlan.from_json(order["plan"])
            retrievals, tier = bench.runtime.retrievals, bench.request.tier
            found = retrievals.look(plan)
            if found.objects and tier is None:
                raise refusal(plan, found)
            if found.objects and tier is not None:
                found = retrievals.ask(plan, tier=tier)
                self.log.info("%s", found.words(tier) or "All that was asked for is back")
        return PokeReturnValue(is_done=not found.objects)
