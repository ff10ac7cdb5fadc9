"""Whether the scheduler does what backup.yaml says; pure: Airflow's answers are given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from neuroca_backup.model.identity import Component
from neuroca_backup.services.objectives.findings import Finding, Kind, Level, hours, seconds_of
from neuroca_backup.settings.cron import last_run

# A scheduler may be this late before a run is called missing.
LATENESS = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class DagState:
    """What Airflow says of the DAG of one component.

    `due` (aware) is when its last scheduled run was due, None where it has no schedule; `runs` is
    how many runs there are for that moment, `failed` how many of them failed. `planned` (aware) is
    which run the scheduler plans next. `problem` is why Airflow could not tell, "" where it did.
    """

    component: Component
    dag_id: str
    cron: str | None
    rpo: timedelta | None
    known: bool = True
    paused: bool = False
    due: datetime | None = None
    runs: int = 0
    failed: int = 0
    planned: datetime | None = None
    problem: str = ""

    @property
    def missing(self) -> bool:
        """Whether there is no run for the last moment that it was due.

        A scheduler that plans a later run already was told of this schedule after that moment.
        """
        if self.due is None or self.runs:
            return False
        return self.planned is None or self.planned <= self.due


def due_at(cron: str | None, *, now: datetime) -> datetime | None:
    """Return when the last run that must be there by now was due, None without a schedule."""
    if cron is None:
        return None
    try:
        return last_run(cron, until=(now - LATENESS).replace(microsecond=0))
    except ValueError:  # it comes due at no time that croniter looks at
        return None


def judge(now: datetime, states: Sequence[DagState]) -> tuple[Finding, ...]:
    """Return one finding for each DAG, whatever its level.

    Where the component has no RPO, what would be a breach is a warning; but what Airflow does not
    tell is a breach always.
    """
    return tuple(_one(now, state) for state in states)


def _one(now: datetime, state: DagState) -> Finding:
    level, problem, remedy = next(_wrong(now, state), (Level.OK, "its runs are on time", ""))
    if state.rpo is None and not state.problem:
        level = min(level, Level.WARNING)
    age = None if state.due is None else (now - state.due).total_seconds()
    return Finding(
        kind=Kind.SCHEDULE,
        level=level,
        component=state.component.value,
        subject=state.dag_id,
        problem=problem,
        remedy=remedy,
        age=age,
        limit=seconds_of(state.rpo),
    )


def _wrong(now: datetime, state: DagState) -> Iterator[tuple[Level, str, str]]:
    """Yield what is wrong, the worst first."""
    if state.problem:
        yield (
            Level.BREACH,
            f"Airflow does not tell whether its runs are on time ({state.problem})",
            "Look at the API server and the scheduler.",
        )
    if not state.known:
        yield (
            Level.BREACH,
            "Airflow has no such DAG, so nothing is backed up",
            "Look under Import Errors, and whether the DAG processor runs.",
        )
    if state.paused:
        yield (
            Level.BREACH,
            "the DAG is paused, so nothing is backed up",
            f"Unpause it: `airflow dags unpause {state.dag_id}`.",
        )
    if state.cron is None:
        yield (
            Level.BREACH,
            "it has no schedule, so it is backed up by hand only",
            f"Write a cron expression under backup.schedule.{state.component}.",
        )
    if state.due is not None and state.missing:
        yield (
            Level.BREACH,
            f"no run was started at {state.due:%Y-%m-%d %H:%M} UTC, when the last one was due, "
            f"{hours((now - state.due).total_seconds())} ago",
            "Look whether the scheduler runs; `airflow jobs check` tells.",
        )
    if state.failed:
        yield (
            Level.WARNING,
            f"the last scheduled run, of {state.due:%Y-%m-%d %H:%M} UTC, failed",
            "The log of its red task says why; clear that task once it is mended.",
        )
