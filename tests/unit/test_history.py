"""What earlier restores tell: success, throughput, trend, and how long the next will take."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuroca_backup.catalog import RestoreRecord
from neuroca_backup.model.identity import Component
from neuroca_backup.services import history
from neuroca_backup.services.forecast import outlook, range_of
from neuroca_backup.services.objectives import recovery
from neuroca_backup.services.objectives.findings import Level
from neuroca_backup.settings import RtoSettings

NOW = datetime(2026, 11, 23, 2, tzinfo=UTC)
DATABASE, TIERS = Component.DATABASE, Component.MEMORY_TIERS
CONFIGURATION, MODELS = Component.CONFIGURATION, Component.MODEL_WEIGHTS


def record(number: int, rate: float = 10, *, source: str = "postgres", **changes: Any) -> Any:
    """Return a restore that ran at `rate` MB/s; a higher number is a later one."""
    at = NOW + timedelta(hours=number)
    return RestoreRecord.model_validate(
        {
            "restore_id": f"restore-{number}",
            "backup_id": f"20261123T020000Z-1f0c9a3e-{source}",
            "store": "primary",
            "target": "sandbox",
            "actor": "somebody",
            "started_at": at,
            "finished_at": at,
            "seconds": {"fetch": 4.0, "load": 6.0},
            "bytes_restored": round(rate * 10_000_000),
            "outcome": "restored",
            **changes,
        }
    )


def test_success_is_counted_and_tests_apart() -> None:
    found = history.of(
        [
            record(1),
            record(2, outcome="failed in load"),
            record(3, target="postgres in place (db:5432)"),
            record(4, source="redis"),
        ],
        "postgres",
    )

    assert str(found.restores) == "2 of 3 (67 %)"
    assert str(found.tests) == "1 of 2 (50 %)"
    assert found.last_test == NOW + timedelta(hours=1)
    assert found.to_json()["tests"] == {"succeeded": 1, "total": 2, "share": 0.5}


def test_nothing_is_no_success() -> None:
    found = history.of([], "postgres")

    assert found.restores.share is None
    assert (found.p50, found.p95, found.last_test) == (None, None, None)


def test_percentiles_are_measured_values() -> None:
    found = history.of([record(n, rate) for n, rate in enumerate(range(1, 101))], "postgres")

    assert (found.p50, found.p95) == (50e6, 95e6)
    assert history.percentile([7.0], 50) == history.percentile([7.0], 95) == 7.0


@pytest.mark.parametrize(
    ("rates", "said"),
    [
        ([], "too few to tell (0)"),
        ([1, 9, 9], "too few to tell (3)"),
        ([10, 10, 5, 5], "50% slower (4)"),
        ([10, 10, 99, 15, 15], "50% faster (5)"),
        ([10, 10, 10, 10.5], "steady (4)"),
    ],
)
def test_a_trend_is_said_with_its_observations_and_never_guessed(
    rates: list[float], said: str
) -> None:
    records = [record(number, rate) for number, rate in enumerate(rates)]

    found = history.of(records[::-1], "postgres")

    assert str(found.trend) == said


def test_parts_count_as_their_source() -> None:
    found = history.of([record(1, source="models__llama"), record(2, source="modelsx")], "models")

    assert found.restores.total == 1


@pytest.mark.parametrize(
    ("rates", "low", "high"),
    [([10], 5, 20), ([10, 10], 10 / 1.5, 15), ([10] * 5, 10 / 1.2, 12), ([5, 20], 10 / 3, 30)],
)
def test_the_range_is_what_was_measured_and_wider_where_that_is_little(
    rates: list[float], low: float, high: float
) -> None:
    records = [record(number, rate) for number, rate in enumerate(rates)]

    found = range_of(records, "postgres", 100_000_000)

    assert found.measured
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def test_without_a_restore_the_range_is_wide_and_called_assumed() -> None:
    found = range_of([], "postgres", 2_250_000_000)

    assert not found.measured
    assert (found.low, found.seconds, found.high) == (25, 100, 400)
    assert found.basis.startswith("assumed: no earlier restore of postgres")


def test_a_part_that_was_never_restored_is_measured_by_the_others_of_its_source() -> None:
    found = range_of([record(1, source="models__a")], "models__b", 10_000_000)

    assert found.measured


@given(
    rates=st.lists(st.floats(0.1, 1000), min_size=1, max_size=9),
    size=st.integers(0, 10**13),
)
def test_a_range_always_holds_its_middle(rates: list[float], size: int) -> None:
    found = range_of([record(n, rate) for n, rate in enumerate(rates)], "postgres", size)

    assert 0 <= found.low <= found.seconds <= found.high


def seconds(source: str, count: float) -> tuple[RestoreRecord, int]:
    """Return a restore that ran at 10 MB/s, and a size that then takes `count` seconds."""
    return record(1, source=source), round(count * 10_000_000)


def test_a_full_recovery_is_the_sum_of_its_steps_and_a_step_as_long_as_its_longest() -> None:
    made = {
        name: seconds(name, count)
        for name, count in (
            *(("configuration", 10), ("airflow", 20), ("postgres", 100), ("vector", 300)),
            *(("working", 50), ("models__a", 30), ("models__b", 40)),
        )
    }
    components = {
        "configuration": CONFIGURATION,
        "airflow": CONFIGURATION,
        "postgres": DATABASE,
        "vector": DATABASE,
        "working": TIERS,
        "models__a": MODELS,
        "models__b": MODELS,
    }

    seen = outlook(
        [one for one, _ in made.values()],
        [(components[name], name, size) for name, (_, size) in made.items()],
    )

    assert {c: round(one.seconds) for c, one in seen.alone.items()} == {
        CONFIGURATION: 20,
        DATABASE: 300,
        TIERS: 50,
        MODELS: 70,
    }
    assert {c: round(one.seconds) for c, one in seen.reached.items()} == {
        CONFIGURATION: 20,
        DATABASE: 320,
        TIERS: 370,
        MODELS: 440,
    }
    assert seen.full_system is not None
    assert round(seen.full_system.seconds) == 440


def test_of_what_has_no_backup_nothing_is_said_nor_of_what_comes_after_it() -> None:
    seen = outlook([], [(CONFIGURATION, "c", 1), (DATABASE, "postgres", None), (TIERS, "w", 1)])

    assert set(seen.alone) == {CONFIGURATION, TIERS}
    assert set(seen.reached) == {CONFIGURATION}
    assert (seen.full_system, seen.unknown) == (None, ((DATABASE, "postgres"),))


@pytest.mark.parametrize(
    ("took", "level"),
    [
        # One restore is widened to double: 4 h are allowed.
        (1.59 * 3600, Level.OK),
        (1.61 * 3600, Level.WARNING),
        (2.01 * 3600, Level.BREACH),
        (None, Level.BREACH),
    ],
)
def test_the_upper_end_is_held_against_the_objective(took: float | None, level: Level) -> None:
    one, size = seconds("postgres", took or 1)
    seen = outlook([one], [(DATABASE, "postgres", size if took else None)])

    found = {
        f.component: f
        for f in recovery.judge_forecast(seen, RtoSettings(), warn_at=0.8, components=[DATABASE])
    }

    assert found.keys() == {"database", "full_system"}
    assert found["database"].level is level
    assert level is Level.OK or found["database"].remedy


def test_what_was_never_measured_is_a_warning_however_small_it_is() -> None:
    seen = outlook([], [(DATABASE, "postgres", 1)])

    found = recovery.judge_forecast(seen, RtoSettings(), warn_at=0.8, components=[DATABASE])

    assert {one.level for one in found} == {Level.WARNING}
    assert "restore_test" in found[0].remedy
