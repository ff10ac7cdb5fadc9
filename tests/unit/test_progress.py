from __future__ import annotations

import logging

import pytest

from neuroca_backup.services.progress import Progress


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_line_every_ten_seconds_tells_percent_rate_and_remaining_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    clock = Clock()
    progress = Progress("upload x", total=100_000_000, clock=clock)
    for _ in range(25):
        clock.now += 1
        progress.add(1_000_000)
    assert caplog.messages == [
        "upload x: 10.0 MB at 1.0 MB/s, 10 %, 90 s remaining",
        "upload x: 20.0 MB at 1.0 MB/s, 20 %, 80 s remaining",
    ]
    assert (progress.done, progress.seconds) == (25_000_000, 25.0)


def test_without_a_total_there_is_no_percent() -> None:
    clock = Clock()
    progress = Progress("dump x", clock=clock)
    clock.now += 2
    progress.add(5_000_000)
    assert str(progress) == "dump x: 5.0 MB at 2.5 MB/s"


def test_nothing_done_and_no_time_passed_is_no_division_by_zero() -> None:
    assert str(Progress("x", total=10, clock=Clock())) == (
        "x: 0.0 MB at 0.0 MB/s, 0 %, 10 s remaining"
    )
