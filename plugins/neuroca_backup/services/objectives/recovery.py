"""Whether a recovery would be quick enough, and whether anybody has tried lately; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from neuroca_backup.model.identity import RESTORE_ORDER, Component
from neuroca_backup.model.quantity import duration
from neuroca_backup.services.forecast import Outlook, Range
from neuroca_backup.services.history import History
from neuroca_backup.services.inventory import CLOCK_TOLERANCE
from neuroca_backup.services.objectives.findings import Finding, Kind, Level, hours
from neuroca_backup.settings import RtoSettings

FULL_SYSTEM = "full_system"
_FASTER = (
    "Restore from a nearer store or to faster machines, split the source, or accept a longer "
    "objective."
)
_MEASURE = "Run the DAG restore_test, so that it is measured."


def judge_forecast(
    outlook: Outlook, rto: RtoSettings, *, warn_at: float, components: Sequence[Component]
) -> tuple[Finding, ...]:
    """Return one finding for each recovery time objective, whatever its level.

    The upper end of the forecast is what counts, of a recovery in which everything was lost: what
    goes before a component is restored first. `warn_at` is a fraction of the objective.
    `components` are those that have sources; without any of the databases or the memory tiers
    their objective does not apply.
    """
    found = [
        _forecast(
            component.value,
            outlook.reached.get(component),
            limit,
            _unknown(outlook, until=component),
            warn_at=warn_at,
        )
        for component, limit in (
            (Component.DATABASE, rto.database),
            (Component.MEMORY_TIERS, rto.memory_tiers),
        )
        if component in components
    ]
    unknown = _unknown(outlook, until=RESTORE_ORDER[-1])
    found.append(
        _forecast(FULL_SYSTEM, outlook.full_system, rto.full_system, unknown, warn_at=warn_at)
    )
    return tuple(found)


def judge_tests(
    now: datetime, histories: Mapping[tuple[Component, str], History], *, most: timedelta
) -> tuple[Finding, ...]:
    """Return one finding for each source: whether its last successful restore test is too old."""
    return tuple(
        _tested(now, component, source, history, most)
        for (component, source), history in histories.items()
    )


def untold(why: str) -> Finding:
    """Return a breach, as no record tells which restores were tested."""
    return Finding(
        kind=Kind.RESTORE_TEST,
        level=Level.BREACH,
        component="",
        subject="catalog",
        problem=f"which restores were tested is not known: {why}",
        remedy="The catalog keeps the record of restore tests: set catalog.connection, or mend "
        "its database.",
    )


def _forecast(
    name: str, taken: Range | None, limit: timedelta, unknown: Sequence[str], *, warn_at: float
) -> Finding:
    allowed = limit.total_seconds()
    level, remedy = Level.OK, ""
    if taken is None:
        level, remedy = Level.BREACH, "Back them up; then this can be told."
        lacking = ", ".join(unknown) or "any source"
        problem = f"how long a restore takes is not known: no verified backup of {lacking}"
    else:
        problem = (
            f"a restore takes {duration(taken.low)} to {duration(taken.high)}, about "
            f"{duration(taken.seconds)}; the RTO is {hours(allowed)}"
        )
        if taken.high > allowed:
            level, remedy = Level.BREACH, _FASTER if taken.measured else _MEASURE
        elif taken.high > allowed * warn_at:
            level, remedy = Level.WARNING, _FASTER if taken.measured else _MEASURE
        elif not taken.measured:
            level, remedy = Level.WARNING, _MEASURE
        if not taken.measured:
            problem += " (not all of it was ever measured)"
    return Finding(
        kind=Kind.FORECAST,
        level=level,
        component=name,
        subject="",
        problem=problem,
        remedy=remedy,
        age=None if taken is None else taken.high,
        limit=allowed,
    )


def _unknown(outlook: Outlook, *, until: Component) -> list[str]:
    """Return the sources of unknown size that are restored before, or with, a component."""
    before = RESTORE_ORDER[: RESTORE_ORDER.index(until) + 1]
    return [source for component, source in outlook.unknown if component in before]


def _tested(
    now: datetime, component: Component, source: str, history: History, most: timedelta
) -> Finding:
    level, problem, remedy = next(
        _untested(now, history, most), (Level.OK, "its restore was tested in time", "")
    )
    last = history.last_test
    return Finding(
        kind=Kind.RESTORE_TEST,
        level=level,
        component=component.value,
        subject=source,
        problem=problem,
        remedy=remedy,
        age=None if last is None else (now - last).total_seconds(),
        limit=most.total_seconds(),
    )


def _untested(now: datetime, history: History, most: timedelta) -> Iterator[tuple[Level, str, str]]:
    remedy = "Run the DAG restore_test, or `neuroca-backup test-restore`."
    last = history.last_test
    if last is None:
        failed = history.tests.total
        tried = f": all {failed} tests failed" if failed else ""
        yield Level.BREACH, f"no restore of it was ever tested with success{tried}", remedy
    elif last > now + CLOCK_TOLERANCE:
        yield Level.BREACH, "its last restore test is from the future", "Set the clocks right."
    elif now - last > most:
        days = (now - last).days
        yield (
            Level.BREACH,
            f"its last successful restore test is {days} days old, and {most.days} are allowed",
            remedy,
        )
