"""The clocks of the objectives: only what is certainly back is back, and time goes on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuroca_backup.errors import ConfigurationError
from neuroca_backup.model.identity import Component
from neuroca_backup.model.recovery import Declared, Event, EventKind, Objective, RecoveryRef
from neuroca_backup.services.recovery.clock import LEVELS, Progress, State, progress
from neuroca_backup.services.recovery.objectives import in_force
from neuroca_backup.settings import RtoSettings

AT = datetime(2026, 11, 23, 2, 0, tzinfo=UTC)
LIMIT = 100.0  # minutes
SOURCES = ("postgres", "redis")
K = EventKind


def head(
    *, sources: tuple[str, ...] = SOURCES, checks: tuple[str, ...] = (), waves: Any = ()
) -> Declared:
    return Declared(
        recovery_id=RecoveryRef.new(at=AT, drill=True, run="x").recovery_id,
        what="fire",
        declared_at=AT,
        recorded_at=AT,
        actor="x",
        drill=True,
        components=(Component.DATABASE,),
        target="a sandbox",
        objectives={"own": Objective(limit_seconds=LIMIT * 60, sources=sources, checks=checks)},
        waves=waves,
    )


def event(minute: float, kind: EventKind, subject: str = "", **details: Any) -> Event:
    at = AT + timedelta(minutes=minute)
    return Event(at=at, kind=kind, subject=subject, actor="x", details=details)


def back(source: str, minute: float) -> list[Event]:
    return [
        event(minute - 2, K.STARTED, source),
        event(minute - 1, K.RESTORED, source),
        event(minute, K.CHECKED, source, passed=True),
    ]


def at(
    minute: float, events: Any, declared: Declared | None = None, **forecasts: float
) -> Progress:
    """Return the progress at `minute`; forecasts are in minutes."""
    return progress(
        declared or head(),
        events,
        objective="own",
        now=AT + timedelta(minutes=minute),
        forecasts={name: 60 * one for name, one in forecasts.items()},
    )


def test_an_objective_runs_is_met_and_keeps_its_time() -> None:
    assert at(30, back("redis", 20)).open == ("postgres",)
    both = back("redis", 20) + back("postgres", 40)
    for later in (40, 99, 5000):
        found = at(later, both)
        assert (found.state, found.used, found.open) == (State.MET, 40 * 60, ())


def test_back_after_the_limit_is_met_late_and_never_met() -> None:
    events = back("redis", 20) + back("postgres", 100.1)
    assert at(200, events).state is State.MET_LATE
    assert at(200, back("redis", 20) + back("postgres", 100)).state is State.MET


def test_at_the_limit_there_is_still_time_and_after_it_none() -> None:
    assert at(100, []).state is State.RUNNING
    assert at(100.01, []).state is State.BREACHED


@given(st.floats(0, 300), st.floats(0, 300))
def test_time_only_goes_on(first: float, second: float) -> None:
    earlier, later = (at(minute, []) for minute in sorted((first, second)))
    assert earlier.used <= later.used
    assert earlier.percent <= later.percent
    assert later.left == pytest.approx(later.limit - later.used)
    assert later.percent in {0, *LEVELS}
    assert (later.state is State.BREACHED) == (later.used > later.limit)


@pytest.mark.parametrize(
    ("minute", "percent"), [(0, 0), (49.9, 0), (50, 50), (74.9, 50), (75, 75), (90, 90), (150, 90)]
)
def test_levels_are_reached_at_their_share(minute: float, percent: int) -> None:
    assert at(minute, []).percent == percent


@given(st.permutations(back("redis", 20) + back("postgres", 40)), st.data())
def test_neither_the_order_nor_the_number_of_tellings_matters(events: Any, data: Any) -> None:
    again = data.draw(st.lists(st.sampled_from(events)))
    assert at(50, events + again) == at(50, back("redis", 20) + back("postgres", 40))


@given(st.integers(0, 3))
def test_without_any_one_of_its_proofs_it_is_not_met(gone: int) -> None:
    events = back("redis", 20) + back("postgres", 40)
    proofs = [one for one in events if one.kind is not K.STARTED]
    rest = [one for one in events if one is not proofs[gone]]
    assert at(50, rest).state is State.RUNNING


@pytest.mark.parametrize(
    "spoiled",
    [
        [event(41, K.FAILED, "postgres")],
        [event(41, K.STARTED, "postgres")],
        [event(41, K.CHECKED, "postgres", passed=False)],
        [event(41, K.STARTED, "postgres"), event(42, K.RESTORED, "postgres")],
    ],
    ids=["failed since", "begun again", "a check failed", "restored anew, not checked"],
)
def test_what_has_been_back_is_not_for_ever(spoiled: list[Event]) -> None:
    both = back("redis", 20) + back("postgres", 40)
    assert at(50, both + spoiled).open == ("postgres",)
    assert at(70, both + spoiled + back("postgres", 60)).state is State.MET


def test_a_check_may_be_told_before_the_restore_that_it_is_of() -> None:
    events = [event(1, K.CHECKED, "redis", passed=True), event(2, K.RESTORED, "redis")]
    assert at(5, events).open == ("postgres",)


def test_what_failed_is_open_and_named() -> None:
    found = at(10, [event(1, K.STARTED, "redis"), event(2, K.FAILED, "redis", problem="p")])
    assert (found.open, found.failed) == (SOURCES, ("redis",))
    assert "failed: redis" in str(found)


def test_a_source_that_another_brings_back_is_back_with_it() -> None:
    skipped = event(1, K.SKIPPED, "redis", covered_by="postgres")
    assert at(10, [skipped]).open == SOURCES
    assert at(50, [skipped, *back("postgres", 40)]).used == 40 * 60


@pytest.mark.parametrize(
    "skipped",
    [
        [event(1, K.SKIPPED, "redis")],
        [event(1, K.SKIPPED, "redis", covered_by="nothing")],
        [event(1, K.SKIPPED, "redis", covered_by="redis")],
        [event(1, K.SKIPPED, "redis", covered_by=True)],
    ],
)
def test_a_source_that_is_left_out_is_not_back(skipped: list[Event]) -> None:
    assert at(50, [*skipped, *back("postgres", 40)]).open == ("redis",)


def test_the_checks_of_the_whole_system_count() -> None:
    declared, both = head(checks=("tls",)), back("redis", 20) + back("postgres", 40)
    assert at(50, both, declared).open == ("tls",)
    failed, passed = (event(m, K.CHECKED, "tls", passed=m > 45) for m in (45, 46))
    assert at(50, [*both, failed], declared).failed == ("tls",)
    assert at(50, [*both, failed, passed], declared).used == 46 * 60


def test_a_recovery_that_ended_without_it_says_so() -> None:
    found = at(10, [event(5, K.ENDED, outcome="rejected")])
    assert (found.state, found.ended) == (State.RUNNING, True)


def test_an_objective_that_was_not_declared_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="It has: own"):
        progress(head(), [], objective="other", now=AT)


def test_a_clock_that_is_behind_gains_no_time() -> None:
    assert at(-10, []).used == 0


# Forecasts.

WAVES = (("configuration",), ("postgres", "redis"), ("logs",))


def test_the_forecast_adds_waves_and_takes_the_longest_of_each() -> None:
    declared = head(waves=WAVES)
    known = {"configuration": 3, "postgres": 30, "redis": 10}
    assert at(10, [], declared, **known).forecast_end == (10 + 3 + 30) * 60
    events = [*back("configuration", 12), event(13, K.STARTED, "postgres")]
    assert at(20, events, declared, **known).forecast_end == (20 + 23) * 60
    events += back("postgres", 25)
    assert at(30, events, declared, **known).forecast_end == (30 + 10) * 60
    events += back("redis", 35)
    assert at(60, events, declared, **known).forecast_end == 35 * 60


def test_without_a_forecast_for_what_is_open_there_is_none() -> None:
    declared = head(waves=WAVES)
    assert at(10, [], declared, postgres=30, redis=10).forecast_end is None
    assert at(12, back("configuration", 12), declared, postgres=30).forecast_end is None


def test_nobody_waits_for_another_source_that_failed() -> None:
    failed = event(5, K.FAILED, "configuration")
    assert at(10, [failed], head(waves=WAVES), postgres=30, redis=10).forecast_end == 40 * 60


def test_what_failed_of_its_own_is_to_be_done_again() -> None:
    events = [event(1, K.STARTED, "postgres"), event(2, K.FAILED, "postgres")]
    assert at(10, events, head(waves=WAVES[1:]), postgres=30, redis=1).forecast_end == 40 * 60


def test_sources_of_no_wave_come_one_after_the_other() -> None:
    assert at(10, [], postgres=30, redis=5).forecast_end == 45 * 60


def test_the_journal_goes_before_the_caller_and_the_beginning_before_both() -> None:
    events = [
        event(1, K.ASSESSED, "postgres", forecast_seconds=600),
        event(2, K.ASSESSED, "redis", forecast_seconds=60.5),
        event(3, K.ASSESSED, "redis", forecast_seconds=True),
    ]
    assert at(10, events, postgres=99).forecast_end == 600 + 600 + 60.5
    events.append(event(10, K.STARTED, "postgres", forecast_seconds=1200))
    assert at(10, events).forecast_end == 600 + 1200 + 60.5


def test_a_restore_that_takes_longer_than_forecast_does_not_end_in_the_past() -> None:
    events = [event(1, K.STARTED, "postgres"), *back("redis", 2)]
    assert at(50, events, postgres=5, redis=5).forecast_end == 50 * 60


# Which objectives are in force.


def test_the_runbooks_three_are_in_force_when_everything_is_lost() -> None:
    lost = {
        Component.DATABASE: ["postgres", "redis"],
        Component.MEMORY_TIERS: ["working"],
        Component.LOGS: ["logs"],
    }
    found = in_force(RtoSettings(), lost, checks=("tls",))
    assert {name: (one.limit_seconds / 3600, one.sources) for name, one in found.items()} == {
        "database": (4, ("postgres", "redis")),
        "memory_tiers": (6, ("working",)),
        "full_system": (12, ("postgres", "redis", "working", "logs")),
    }
    assert [one.checks for one in found.values()] == [(), (), ("tls",)]


def test_what_is_not_lost_has_no_objective_and_ones_own_come_in_order() -> None:
    rto = RtoSettings.model_validate(
        {
            "also": {
                "talk": {"within": "30m", "sources": ["redis", "models"]},
                "none": {"within": "1h", "sources": ["mongodb"]},
            }
        }
    )
    lost = {Component.DATABASE: ["redis"], Component.MODEL_WEIGHTS: ["models__a", "other"]}
    found = in_force(rto, lost)
    assert list(found) == ["talk", "database", "full_system"]
    assert found["talk"].sources == ("redis", "models__a")
