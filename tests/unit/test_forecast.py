"""How long a restore is said to take, and on what ground."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from neuroca_backup.catalog import RestoreRecord
from neuroca_backup.catalog.memory import MemoryCatalog
from neuroca_backup.errors import UnreachableError
from neuroca_backup.model.quantity import duration, size
from neuroca_backup.services.forecast import forecast

NOW = datetime(2026, 11, 23, 2, tzinfo=UTC)


def record(number: int, *, source: str = "postgres", **changes: object) -> RestoreRecord:
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
            "bytes_restored": 100_000_000,
            "outcome": "restored",
            **changes,
        }
    )


def test_earlier_restores_of_the_source_tell_the_time_and_that_is_called_measured() -> None:
    catalog = MemoryCatalog()
    catalog.record_restore(record(1))
    found = forecast(catalog, "postgres", 1_000_000_000)
    assert found.measured
    assert found.seconds == pytest.approx(100)
    assert found.basis == "measured: the last restore of postgres ran at 10 MB/s"


def test_the_middle_of_the_five_newest_counts() -> None:
    catalog = MemoryCatalog()
    for number, size_ in enumerate([999, 999, 10, 20, 30, 40, 50]):
        catalog.record_restore(record(number, bytes_restored=size_ * 10_000_000))
    assert forecast(catalog, "postgres", 300_000_000).seconds == pytest.approx(10)


@pytest.mark.parametrize(
    "useless",
    [
        {"outcome": "failed in load"},
        {"bytes_restored": 0},
        {"seconds": {}},
        {"source": "redis"},
        {"backup_id": "something else"},
    ],
)
def test_a_restore_that_tells_nothing_is_not_counted_and_an_assumption_is_called_one(
    useless: dict[str, object],
) -> None:
    catalog = MemoryCatalog()
    catalog.record_restore(record(1, **useless))  # type: ignore[arg-type]
    found = forecast(catalog, "postgres", 250_000_000)
    assert not found.measured
    assert found.seconds == pytest.approx(20)
    assert found.basis.startswith("assumed: no earlier restore of postgres is in the catalog")


def test_a_catalog_that_does_not_answer_stops_no_restore() -> None:
    class Silent(MemoryCatalog):
        def restores(self, *, limit: int = 100) -> list[RestoreRecord]:
            raise UnreachableError(f"no answer to {limit}", remedy="")

    found = forecast(Silent(), "postgres", 0)
    assert not found.measured
    assert "the catalog could not be asked (no answer to 500)" in found.basis


def test_sizes_and_times_are_in_the_words_of_people() -> None:
    assert [size(n) for n in (0, 999, 1500, 2_000_000)] == ["0 B", "999 B", "1.5 kB", "2.0 MB"]
    assert [duration(s) for s in (0.2, 8.4, 119, 600, 12_000)] == [
        *("1 s", "8 s", "119 s", "10 min", "3 h 20 min")
    ]
