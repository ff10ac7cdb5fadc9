"""Step 4 of a recovery: one group a priority, the steps of a restore once for each source."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from typing_extensions import override

from neuroca_backup.model.recovery import EventKind
from neuroca_backup.operators.recovery_step import (
    APPROVALS,
    TARGET_GROUP,
    RecoveryOperator,
    Situation,
    attempt_of,
)
from neuroca_backup.operators.restore import FetchOperator, RecordOperator, SaveOperator
from neuroca_backup.operators.restore_step import Bench, RestoreOperator

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow.sdk import Context

    from neuroca_backup.model.recovery import Event
    from neuroca_backup.services.recovery.plan import PlannedSource


class ChooseOperator(RecoveryOperator):
    """Say which sources of a priority are restored now; the group beside has one of each.

    A memory tier that a database has just brought back is left out, and the journal says so; it is
    restored where that database's restore failed, or where its own backup is newer. Run again, it
    leaves out what this recovery has brought back before.

    Args:
        priority: The name of the priority in backup.yaml.
    """

    def __init__(self, *, priority: str, **kwargs: Any) -> None:
        self.priority = priority
        super().__init__(**kwargs)

    @override
    def work(self, here: Situation, context: Context) -> list[dict[str, Any]]:
        plan = here.approved_plan(context)
        checked = [one.source for one in plan.sources if not one.left_to and one.plan is not None]
        back = brought_back(here.journal.read(tolerant=True).events)
        orders = []
        for index, one in plan.of(self.priority):
            if one.source in back and here.holds(one):
                self.log.info("%s is back already, and stays as it is", one.source)
                continue
            why = self._left_out(one, back)
            if why:
                self.log.info("%s is not restored by itself: %s", one.source, why)
                here.note(
                    EventKind.SKIPPED,
                    one.source,
                    once=f"skipped:{one.source}:{attempt_of(context)}",
                    reason=why,
                    covered_by=one.covered_by,
                )
                continue
            first = one.source in checked
            place = checked.index(one.source) if first else index
            orders.append(here.order(place, one, checks=TARGET_GROUP if first else ""))
        if not orders:
            raise AirflowSkipException(f"There is nothing left to restore in {self.priority}.")
        return orders

    def _left_out(self, one: PlannedSource, back: set[str]) -> str:
        if one.plan is None and one.covered_by:
            return one.problem
        if one.left_to and one.left_to in back:
            return f"{one.left_to} has brought the same data back"
        return ""


class StartOperator(FetchOperator):
    """Fetch, unseal and decompress the members into the spool, every byte checked.

    With it the restore of the source begins, for the journal and for the clocks.
    """

    @override
    def run(self, bench: Bench, context: Context) -> dict[str, Any]:
        plan = self.plan
        here = Situation.of(context)
        forecast = self.received["forecast"] or {}
        here.note(
            EventKind.STARTED,
            plan.source,
            once=f"started:{plan.source}:{attempt_of(context)}",
            restore_id=plan.restore_id,
            backup_id=plan.backup_id,
            forecast_seconds=forecast.get("seconds"),
        )
        return super().run(bench, context)


class SaveFirstOperator(SaveOperator):
    """Back up what a restore in place would overwrite, where the engine keeps no copy itself."""

    @override
    def run(self, bench: Bench, context: Context) -> dict[str, Any]:
        over = self.received.get("over")
        if over:
            return {"notes": [f"It takes the place of what the restore of {over} has brought"]}
        return super().run(bench, context)


class RecoveredOperator(RecordOperator):
    """Record the restore whatever became of it, in the journal, too; then fail if it failed."""

    approval = APPROVALS[-1]

    @override
    def run(self, bench: Bench, context: Context) -> dict[str, Any]:
        here = Situation.of(context)
        source = self.received["source"]
        try:
            found = super().run(bench, context)
        except AirflowFailException as error:
            here.note(
                EventKind.FAILED,
                source,
                once=f"failed:{source}:{attempt_of(context)}",
                problem=str(error),
            )
            raise
        fetched = self.fetched(context)
        reports = self._reports(context)
        here.note(
            EventKind.RESTORED,
            source,
            once=f"restored:{source}:{attempt_of(context)}",
            restore_id=fetched.plan.restore_id,
            backup_id=fetched.plan.backup_id,
            stores=", ".join(name for name, size in fetched.bytes_by_store.items() if size),
            consistent_at=self._moment(bench, context),
            bytes=fetched.size,
            seconds=round(sum(one["seconds"] for one in reports.values()), 3),
            fallbacks="; ".join(fetched.fallbacks),
            passed_over="; ".join(fetched.plan.passed_over),
        )
        # `compare` and `examine` have both passed, or it would not be restored.
        here.note(
            EventKind.CHECKED,
            source,
            once=f"checked:{source}:{attempt_of(context)}",
            passed=True,
        )
        return found

    def _moment(self, bench: Bench, context: Context) -> str:
        from neuroca_backup.services.inventory import (  # noqa: PLC0415 - only the task needs it
            Inventory,
        )

        plan = self.fetched(context).plan
        if plan.until:
            return plan.until
        moment = Inventory(bench.runtime.stores).look(plan.ref).current_at
        return plan.taken_at if moment is None else moment.isoformat()


class ClearOperator(RestoreOperator):
    """Leave nothing of this source's restore in the spool; what was restored stays."""

    ui_color = "#5f6368"

    @override
    def run(self, bench: Bench, context: Context) -> dict[str, Any]:
        if self.received["plan"] is None:
            return {"notes": []}
        bench.runtime.restores.clear(self.plan.restore_id)
        return {"notes": []}


def brought_back(events: Iterable[Event]) -> set[str]:
    """Return the sources that were restored, and have neither begun anew nor failed since."""
    back: set[str] = set()
    for event in events:
        if event.kind is EventKind.RESTORED:
            back.add(event.subject)
        elif event.kind in {EventKind.STARTED, EventKind.FAILED}:
            back.discard(event.subject)
    return back


def restored_backup(events: Iterable[Event], source: str) -> str | None:
    """Return the id of the backup that `source` was restored from at last."""
    found = None
    for event in events:
        if event.subject == source and event.kind is EventKind.RESTORED:
            found = event.details.get("backup_id")
    return None if found is None else str(found)
