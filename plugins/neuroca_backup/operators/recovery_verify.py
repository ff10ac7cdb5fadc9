"""Step 5 of a recovery: the points to go through once everything is back, a task a point."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from typing_extensions import override

from neuroca_backup.errors import BackupError, PermanentError
from neuroca_backup.model.identity import BackupRef, Component
from neuroca_backup.model.recovery import EventKind
from neuroca_backup.operators.recovery_restore import brought_back, restored_backup
from neuroca_backup.operators.recovery_step import RecoveryOperator, Situation, attempt_of
from neuroca_backup.operators.restore import together

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context
    from airflow.sdk.definitions._internal.expandinput import MappedArgument

    from neuroca_backup.model.recovery import Event
    from neuroca_backup.services.recovery.plan import PlannedSource, RecoveryPlan

_TOLD = 10


class PointOperator(RecoveryOperator):
    """A point of the list; its problems fail it, and nothing else."""

    ui_color = "#2d6a31"

    def work(self, here: Situation, context: Context) -> dict[str, Any]:
        """Return the notes; note in the journal whether it passed."""
        plan = here.approved_plan(context)
        name = self._name(context)
        notes, problems = self.look(here, plan, context)
        for line in notes:
            self.log.info("%s", line)
        for line in problems:
            self.log.error("%s", line)
        here.note(
            EventKind.CHECKED,
            name,
            once=f"checked:{name}:{attempt_of(context)}",
            passed=not problems,
            problem="; ".join(problems[:_TOLD]) or None,
        )
        if problems:
            raise AirflowFailException(
                f"{name} has {len(problems)} problems: {'; '.join(problems[:_TOLD])}. What was "
                "restored stays. Mend them, then clear this task."
            )
        return {"notes": notes[:_TOLD]}

    def look(
        self, here: Situation, plan: RecoveryPlan, context: Context
    ) -> tuple[list[str], list[str]]:
        """Return notes and problems; raise `AirflowSkipException` where it cannot be asked."""
        raise NotImplementedError

    def _name(self, context: Context) -> str:  # noqa: ARG002 - a mapped one asks it
        # Its whole id: a source may have the name of a point.
        return str(self.task_id)


class ComponentPointOperator(PointOperator):
    """Ask every source of a component once more, where it is now, whether it works.

    A memory tier that a database has brought back is asked there.

    Args:
        component: Which one.
    """

    def __init__(self, *, component: Component | str, **kwargs: Any) -> None:
        self.component = Component(component)
        super().__init__(**kwargs)

    @override
    def look(
        self, here: Situation, plan: RecoveryPlan, context: Context
    ) -> tuple[list[str], list[str]]:
        mine = [one for one in plan.sources if one.component is self.component]
        mine = [one for one in mine if one.plan is not None or not one.covered_by]
        if not mine:
            raise AirflowSkipException(f"Not asked: nothing of {self.component} is recovered.")
        notes, problems = ask_all(here, plan, mine, context, speed=False)
        if self.component is Component.MEMORY_TIERS:
            # Each can be right by itself, and name what another one does not have.
            agreed = here.runtime.agreement.judge(together(context))
            notes += agreed.notes
            problems += agreed.problems
        return notes, problems


class PerformanceOperator(PointOperator):
    """Hold the answers of every source to the times that the source itself took."""

    @override
    def look(
        self, here: Situation, plan: RecoveryPlan, context: Context
    ) -> tuple[list[str], list[str]]:
        if plan.drill:
            raise AirflowSkipException("Not asked: throwaway servers are of another size.")
        mine = [one for one in plan.sources if one.plan is not None]
        return ask_all(here, plan, mine, context, speed=True)


class SecurityOperator(PointOperator):
    """Try what an attacker would try first: passwords, encryption, addresses, modes of files."""

    @override
    def look(
        self, here: Situation, plan: RecoveryPlan, context: Context
    ) -> tuple[list[str], list[str]]:
        from neuroca_backup.services.recovery import security  # noqa: PLC0415 - only the task's

        if plan.drill:
            raise AirflowSkipException("Not asked: throwaway servers are not the system.")
        notes: list[str] = []
        problems: list[str] = []
        for one in plan.sources:
            if one.plan is None or one.covered_by:
                continue
            endpoint = here.whereabouts(context, one)
            for found in security.look(endpoint, one.plan.engine):
                (problems if found.well is False else notes).append(f"{one.source}: {found}")
        return notes, problems


class FunctionalityOperator(PointOperator):
    """Run one of your own checks, a command of `recovery.checks` that exits with 0 if all is well.

    Args:
        check: Its name.
    """

    template_fields: Sequence[str] = ("check",)

    def __init__(self, *, check: MappedArgument | str, **kwargs: Any) -> None:
        self.check = check
        super().__init__(**{"map_index_template": "{{ task.check }}", **kwargs})

    @override
    def look(
        self, here: Situation, plan: RecoveryPlan, context: Context
    ) -> tuple[list[str], list[str]]:
        from neuroca_backup.services.recovery import hooks  # noqa: PLC0415 - only tasks need it

        if plan.drill:
            raise AirflowSkipException("Not asked: a drill has no system, but throwaway servers.")
        chosen = [one for one in here.runtime.settings.recovery.checks if one.name == self.check]
        if not chosen:
            raise AirflowFailException(f"backup.yaml has no check {self.check!r} any more.")
        try:
            return hooks.run(chosen[0], recovery_id=plan.recovery_id), []
        except PermanentError as error:
            return [], [error.problem]

    @override
    def _name(self, context: Context) -> str:
        return f"{self.task_id}:{self.check}"


class UncheckedOperator(RecoveryOperator):
    """Say that nobody has written down how to test the system: `recovery.checks` is empty."""

    @override
    def work(self, here: Situation, context: Context) -> None:
        here.approved_plan(context)
        raise AirflowSkipException("Not asked: `recovery.checks` in backup.yaml has no check.")


def ask_all(
    here: Situation,
    plan: RecoveryPlan,
    sources: Sequence[PlannedSource],
    context: Context,
    *,
    speed: bool,
) -> tuple[list[str], list[str]]:
    """Ask `sources` where they are now; return notes and problems, each with its source."""
    notes: list[str] = []
    problems: list[str] = []
    events = here.journal.read(tolerant=True).events
    for one in sources:
        try:
            found = _ask(here, plan, one, context, events, speed=speed)
        except BackupError as error:
            problems.append(f"{one.source}: {error.problem}")
            continue
        if isinstance(found, str):
            problems.append(f"{one.source}: {found}")
            continue
        notes += [f"{one.source}: {line}" for line in found.notes]
        problems += [f"{one.source}: {line}" for line in found.problems]
    return notes, problems


def _ask(
    here: Situation,
    plan: RecoveryPlan,
    one: PlannedSource,
    context: Context,
    events: Sequence[Event],
    *,
    speed: bool,
) -> Any:
    from neuroca_backup.services import asking  # noqa: PLC0415 - only tasks need it
    from neuroca_backup.services.recovery.verification import (  # noqa: PLC0415 - as above
        Verification,
    )

    back = brought_back(events)
    if one.plan is None:
        return f"it was not restored: {one.problem}"
    if one.source in back:
        backup_id, holder = restored_backup(events, one.source) or one.plan.backup_id, one
    elif one.covered_by in back:
        backup_id = one.plan.backup_id
        holder = next(other for other in plan.sources if other.source == one.covered_by)
    else:
        return "it was not restored"
    if not here.holds(holder):
        return asking.Outcome(
            ("not asked: its throwaway server is gone; it was asked when it was restored",), ()
        )
    return Verification(here.runtime.stores).source(
        BackupRef(backup_id=backup_id, component=one.component),
        here.whereabouts(context, holder),
        questions=here.runtime.questions(one.source),
        speed=speed,
    )
