"""The clock of a recovery time objective: a pure function of the journal and the time.

It counts from the moment of the declared disaster. No state is kept anywhere else, so a sensor that
is started again sees exactly what the one before it saw.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType

from neuroca_backup.errors import ConfigurationError
from neuroca_backup.model import quantity
from neuroca_backup.model.recovery import Declared, Event, EventKind, Objective
from neuroca_backup.services.recovery.states import Stage, States, number

# Percent of the limit at which people are warned.
LEVELS = (50, 75, 90)
_NOTHING: Mapping[str, float] = MappingProxyType({})


class State(StrEnum):
    """What can be said of an objective. Only the two that are met cannot change any more."""

    RUNNING = "running"
    MET = "met"
    BREACHED = "breached"
    MET_LATE = "met late"


@dataclass(frozen=True, slots=True)
class Progress:
    """How an objective stands at one moment; all times in seconds since the declared disaster.

    `used` ends when the objective is met. `left` is negative after the limit. `open` are the
    sources and checks that are not back, `failed` those of them whose last attempt failed.
    `forecast_end` is when the last one will be back, None where nothing tells. `percent` is the
    highest of the levels that has been reached, or 0. `ended` is whether the recovery is over.
    """

    objective: str
    limit: float
    used: float
    open: tuple[str, ...]
    failed: tuple[str, ...]
    forecast_end: float | None
    state: State
    ended: bool

    @property
    def left(self) -> float:
        """Seconds until the limit."""
        return self.limit - self.used

    @property
    def share(self) -> float:
        """The part of the limit that is used; above 1 after it."""
        return self.used / self.limit

    @property
    def percent(self) -> int:
        """The highest level that has been reached, or 0."""
        return max((one for one in LEVELS if self.used * 100 >= self.limit * one), default=0)

    @property
    def met(self) -> bool:
        """Whether everything was back in time."""
        return self.state is State.MET

    def __str__(self) -> str:
        told = f"{self.objective}: {self.state}, {quantity.duration(self.used)} used of "
        told += f"{quantity.duration(self.limit)} ({self.share:.0%})"
        if self.state in {State.MET, State.MET_LATE}:
            return told
        over = "left" if self.left >= 0 else "over"
        told += f", {quantity.duration(abs(self.left))} {over}; "
        if self.forecast_end is None:
            told += "no forecast"
        else:
            told += f"forecast to end at {quantity.duration(self.forecast_end)}"
            told += " (late)" if self.forecast_end > self.limit else ""
        told += f"; open: {', '.join(self.open)}"
        return told + (f"; failed: {', '.join(self.failed)}" if self.failed else "")


def progress(
    declared: Declared,
    events: Iterable[Event],
    *,
    objective: str,
    now: datetime,
    forecasts: Mapping[str, float] = _NOTHING,
) -> Progress:
    """Return how `objective` stands at `now` (aware).

    Args:
        declared: The head of the journal.
        events: Its events, in any order; those after `now` count, for machines' clocks differ.
        objective: One of `declared.objectives`.
        now: The time.
        forecasts: Seconds that each source's restore takes; what the journal itself forecasts
            (`forecasts_of`) goes first.

    Raises:
        ConfigurationError: The recovery has no such objective.
    """
    wanted = named(declared, objective)
    seen = tuple(events)
    states = States(seen)
    back = {one: states.back_at(one) for one in wanted.sources}
    back |= {one: states.passed_at(one) for one in wanted.checks}
    moments = [at for at in back.values() if at is not None]
    met = len(moments) == len(back)
    used = _seconds((max(moments) if met else now) - declared.declared_at)
    within = used <= wanted.limit_seconds
    state = (State.MET if within else State.MET_LATE) if met else State.RUNNING
    if not met and not within:
        state = State.BREACHED
    open_ = tuple(name for name, at in back.items() if at is None)
    return Progress(
        objective=objective,
        limit=wanted.limit_seconds,
        used=used,
        open=open_,
        failed=tuple(name for name in open_ if states.of(name).stage is Stage.FAILED),
        forecast_end=used
        if met
        else _forecast_end(
            declared,
            wanted,
            states,
            now=now,
            forecasts={**forecasts, **forecasts_of(seen)},
        ),
        state=state,
        ended=states.ended is not None,
    )


def named(declared: Declared, objective: str) -> Objective:
    """Return the objective of that name; a `ConfigurationError` lists those that there are."""
    found = declared.objectives.get(objective)
    if found is None:
        raise ConfigurationError(
            f"{declared.recovery_id} has no objective {objective!r}",
            remedy=f"It has: {', '.join(declared.objectives) or 'none'}.",
            value=objective,
        )
    return found


def forecasts_of(events: Iterable[Event]) -> dict[str, float]:
    """Return how many seconds each source's restore will take, as it was assessed last."""
    found: dict[str, float] = {}
    for event in sorted(events, key=lambda one: one.at):
        seconds = number(event, "forecast_seconds")
        if event.kind is EventKind.ASSESSED and event.subject and seconds is not None:
            found[event.subject] = seconds
    return found


def _forecast_end(
    declared: Declared,
    wanted: Objective,
    states: States,
    *,
    now: datetime,
    forecasts: Mapping[str, float],
) -> float | None:
    """Return when the last source of `wanted` will be back.

    Each wave takes as long as its longest source, and those before a source's own count, unless
    they have failed: nobody waits for them. Sources in no wave come one after the other.
    """
    seconds, done = 0.0, set[str]()
    ahead = {one for one in wanted.sources if states.back_at(one) is None}
    rest = tuple((one,) for one in wanted.sources if not any(one in w for w in declared.waves))
    for wave in (*declared.waves, *rest):
        if not ahead - done:
            break
        waited = [
            one for one in wave if one in wanted.sources or states.of(one).stage is not Stage.FAILED
        ]
        lefts = [states.left(one, now=now, forecasts=forecasts) for one in waited]
        known = [left for left in lefts if left is not None]
        if len(known) < len(lefts):
            return None
        seconds += max(known, default=0.0)
        done |= set(wave)
    return _seconds(now + timedelta(seconds=seconds) - declared.declared_at)


def _seconds(passed: timedelta) -> float:
    # A clock that is behind the one that declared the disaster has not gained time.
    return max(passed.total_seconds(), 0.0)
