"""What a recovery asks those who look back: whatever was not as it should be, as a question."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from neuroca_backup.model import quantity
from neuroca_backup.model.recovery import Declared
from neuroca_backup.model.recovery_report import (
    Attempt,
    Decision,
    Failure,
    ObjectiveReport,
    SourceReport,
)
from neuroca_backup.services.recovery.clock import State

# What an objective is called without which the recovery has ended.
NOT_MET = "not met"
# A restore that takes so many times its forecast, or an answer so many seconds, is asked about.
_MUCH_LONGER = 1.5
_LONG_ANSWER = 600


def questions(
    declared: Declared,
    sources: Sequence[SourceReport],
    objectives: Sequence[ObjectiveReport],
    decisions: Sequence[Decision],
    failures: Sequence[Failure],
) -> Iterator[str]:
    """Yield the questions, those about time first."""
    for goal in objectives:
        if goal.state not in {State.MET, State.RUNNING}:
            over = goal.used_seconds - goal.limit_seconds
            late = f" by {quantity.duration(over)}" if over > 0 else ""
            yield f"The objective {goal.objective} was missed{late}. What took the time?"
    for one in sources:
        yield from _of_source(one)
    for subject in dict.fromkeys(one.subject for one in failures):
        yield f"{subject or 'A step'} failed at least once. Can it be kept from failing again?"
    if decisions:
        waited = (decisions[0].at - declared.recorded_at).total_seconds()
        if waited > _LONG_ANSWER:
            yield f"The first answer took {quantity.duration(waited)}. Who has to be within reach?"


def _of_source(one: SourceReport) -> Iterator[str]:
    if one.within_rpo is False and one.lost_seconds is not None:
        yield (
            f"{one.source} lost {quantity.duration(one.lost_seconds)} of data, more than its "
            "objective allows. Why was there no younger backup?"
        )
    if one.fallbacks or one.passed_over:
        yield (
            f"{one.source} did not come from the nearest, newest copy. What was wrong with that "
            "copy?"
        )
    for attempt in one.attempts:
        yield from _of_attempt(one.source, attempt)


def _of_attempt(source: str, attempt: Attempt) -> Iterator[str]:
    if not attempt.forecast_seconds or attempt.restored_at is None:
        return
    took = (attempt.restored_at - attempt.started_at).total_seconds()
    if took > attempt.forecast_seconds * _MUCH_LONGER:
        yield (
            f"Restoring {source} took {quantity.duration(took)}, and "
            f"{quantity.duration(attempt.forecast_seconds)} were forecast. Why?"
        )
