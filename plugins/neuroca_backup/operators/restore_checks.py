"""The checklist before a restore, a task a line. Nothing that is restored to is touched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from typing_extensions import override

from neuroca_backup.operators.restore_step import Bench, RestoreOperator

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow.sdk import Context

    from neuroca_backup.model.tickets import RestorePlan

_COLOUR = "#2e6b9e"


def start_sandbox(bench: Bench, plan: RestorePlan, *, forget_after: timedelta) -> str:
    """Start the throwaway server of a source, or find the one that runs; return a note."""
    from neuroca_backup import sandbox  # noqa: PLC0415 - only the task needs it
    from neuroca_backup.services import targets  # noqa: PLC0415 - as above

    spool = bench.runtime.spool
    spool.require_free(0)  # creates it private, which the sandbox would not
    bench.runtime.restores.end_forgotten(older_than=forget_after)
    kind = targets.sandbox_kind(plan.engine)
    sandbox.start(spool.sandbox(plan.restore_id), [kind])
    return f"A {kind} runs at {bench.target(plan).endpoint.label}"


class SandboxOperator(RestoreOperator):
    """Start the throwaway server, where the target is one.

    Args:
        forget_after: How long a sandbox that was kept may run before it is stopped.
    """

    ui_color = "#5f6368"

    def __init__(self, *, forget_after: timedelta, **kwargs: Any) -> None:
        self.forget_after = forget_after
        super().__init__(**kwargs)

    @override
    def run(self, bench: Bench, context: Context) -> dict[str, Any]:
        if bench.request.target != "sandbox":
            return {"notes": [f"No sandbox is needed: the target is {bench.request.target}"]}
        if self.received["plan"] is None:
            return {"notes": ["No sandbox is needed: there is no plan"]}
        return {"notes": [start_sandbox(bench, self.plan, forget_after=self.forget_after)]}


class SpaceOperator(RestoreOperator):
    """See that the spool, and the target where it can be asked, have room for what is restored."""

    ui_color = _COLOUR

    @override
    def run(self, bench: Bench, context: Context) -> dict[str, Any]:
        plan = self.plan
        notes = bench.runtime.checklist.space(plan, self.target(bench, plan))
        return {"notes": list(notes)}


class IntegrityOperator(RestoreOperator):
    """Read the backup back in the store that it will come from: stored digests, keys there."""

    ui_color = _COLOUR

    @override
    def run(self, bench: Bench, context: Context) -> dict[str, Any]:
        if not bench.request.read_back:
            return {"notes": ["Not read back first, as was asked; fetch checks every byte"]}
        return {"notes": list(bench.runtime.checklist.integrity(self.plan))}


class VersionsOperator(RestoreOperator):
    """Refuse what cannot work: other versions, parts that are not there, a target with data."""

    ui_color = _COLOUR

    @override
    def run(self, bench: Bench, context: Context) -> dict[str, Any]:
        plan = self.plan
        notes = bench.runtime.checklist.versions(plan, self.target(bench, plan))
        return {"notes": list(notes)}


class StateOperator(RestoreOperator):
    """Document the target as it is before: its version, and the services that use its data."""

    ui_color = _COLOUR

    @override
    def run(self, bench: Bench, context: Context) -> dict[str, Any]:
        plan = self.plan
        notes = bench.runtime.checklist.state(plan, self.target(bench, plan))
        return {"notes": list(notes)}
