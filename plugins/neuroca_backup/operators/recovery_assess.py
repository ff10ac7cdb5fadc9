"""Step 1 of a recovery: who answers, what there is, and the plan that others approve."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowFailException
from typing_extensions import override

from neuroca_backup.model.recovery import Declared, EventKind
from neuroca_backup.operators.recovery_step import RecoveryOperator, Situation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context
    from airflow.sdk.definitions.xcom_arg import XComArg

    from neuroca_backup.services.recovery.plan import RecoveryPlan


class SurveyOperator(RecoveryOperator):
    """Check the form; ask every source and every store whether it answers. Nothing is changed."""

    @override
    def work(self, here: Situation, context: Context) -> list[dict[str, Any]]:
        found = here.runtime.assessment.look_around(here.request)
        for one in found:
            words = {True: "answers", False: "DOES NOT ANSWER", None: "was not asked"}[one.answers]
            self.log.info("%s %s %s: %s", one.kind, one.name, words, one.detail)
        return [one.model_dump(mode="json") for one in found]


class PlanRecoveryOperator(RecoveryOperator):
    """Choose what comes back from where, in which order, and how long it will take.

    The plan is stored beside the backups, in every store that answers, and its text is the log of
    this task. What cannot be restored is named with why.

    Args:
        reached: What the task before has found.
    """

    template_fields: Sequence[str] = ("reached",)

    def __init__(self, *, reached: XComArg | list[dict[str, Any]], **kwargs: Any) -> None:
        self.reached = reached
        super().__init__(**kwargs)

    @override
    def work(self, here: Situation, context: Context) -> dict[str, Any]:
        from neuroca_backup.services.recovery.plan import (  # noqa: PLC0415 - only tasks need it
            PLAN_JSON,
            PLAN_MARKDOWN,
            Reached,
        )
        from neuroca_backup.services.recovery.plan_document import (  # noqa: PLC0415 - as above
            markdown,
        )

        assert not hasattr(self.reached, "operator")  # noqa: S101 - Airflow has rendered it
        plan = here.runtime.assessment.plan(
            here.request,
            recovery_id=here.ref.recovery_id,
            restore_prefix=here.restore_prefix,
            declared_at=here.declared_at(context),
            actor=here.actor,
            reached=[Reached.model_validate(one) for one in self.reached],  # type: ignore[union-attr]
        )
        text = markdown(plan)
        for line in text.splitlines():
            self.log.info("%s", line)
        here.journal.declare(_declared(here, plan))
        here.journal.attach(PLAN_JSON, plan.encode())
        here.journal.attach(PLAN_MARKDOWN, text.encode())
        self._note(here, plan)
        if not any(one.plan for one in plan.sources):
            raise AirflowFailException(
                "Nothing can be restored: "
                + "; ".join(f"{name}: {why}" for name, why in plan.problems.items())
            )
        for name, why in plan.problems.items():
            self.log.error("%s CANNOT be restored: %s", name, why)
        return {"recovery_id": plan.recovery_id, "sha256": plan.sha256}

    def _note(self, here: Situation, plan: RecoveryPlan) -> None:
        here.note(EventKind.DECLARED, once="declared")
        for one in plan.sources:
            if one.plan is None:
                if one.covered_by:
                    here.note(
                        EventKind.SKIPPED,
                        one.source,
                        once=f"skipped:{one.source}:{plan.sha256}",
                        reason=f"it stays as it is: {one.problem}",
                    )
                    continue
                here.note(
                    EventKind.ASSESSED,
                    one.source,
                    once=f"assessed:{one.source}:{plan.sha256}",
                    problem=one.problem,
                )
                continue
            moment = one.brings_back
            here.note(
                EventKind.ASSESSED,
                one.source,
                once=f"assessed:{one.source}:{plan.sha256}",
                backup_id=one.plan.backup_id,
                consistent_at=None if moment is None else moment.isoformat(),
                forecast_seconds=None if one.forecast is None else one.forecast.seconds,
                size=one.plan.plain_size,
                level=", ".join(f"{store} {level}" for store, level in one.levels.items()),
            )
        skews = [one.skew_seconds for one in plan.components if one.skew_seconds is not None]
        here.note(
            EventKind.ASSESSED,
            once=f"assessed:{plan.sha256}",
            plan=plan.sha256,
            skew_seconds=max(skews, default=None),
        )


def _declared(here: Situation, plan: RecoveryPlan) -> Declared:
    """Return the head of the journal; what is left as it is belongs to no objective."""
    from neuroca_backup.services.recovery.objectives import (  # noqa: PLC0415 - only tasks need it
        in_force,
    )
    from neuroca_backup.services.recovery.plan import recovered  # noqa: PLC0415 - as above
    from neuroca_backup.services.recovery.verification import (  # noqa: PLC0415 - as above
        required_checks,
    )

    lost = recovered(plan.sources)
    everything = {source for sources in lost.values() for source in sources}
    settings = here.runtime.settings
    checks = required_checks(plan, settings.recovery)
    objectives = in_force(settings.objectives.rto, lost, checks=checks)
    return Declared(
        recovery_id=plan.recovery_id,
        what=plan.what_happened,
        declared_at=plan.declared_at,
        recorded_at=datetime.now(UTC),
        actor=plan.actor,
        drill=plan.drill,
        components=tuple(one.component for one in plan.components),
        target=plan.target.replace("_", " "),
        objectives=objectives,
        waves=tuple(
            tuple(source for source in chosen if source in everything)
            for _, chosen in plan.priorities
            if everything & set(chosen)
        ),
    )
