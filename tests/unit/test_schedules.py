"""Whether what Airflow says of the backups' schedules is judged right."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from neuroca_backup.model.identity import Component
from neuroca_backup.services.objectives.findings import Level
from neuroca_backup.services.objectives.schedules import DagState, due_at, judge

DAILY = "0 2 * * *"
DUE = datetime(2026, 11, 23, 2, tzinfo=UTC)
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
GOOD = DagState(Component.DATABASE, "backup_database", DAILY, timedelta(hours=24), due=DUE, runs=1)


@pytest.mark.parametrize(
    ("changes", "level", "said"),
    [
        ({}, Level.OK, "on time"),
        ({"known": False, "runs": 0}, Level.BREACH, "has no such DAG"),
        ({"paused": True}, Level.BREACH, "is paused"),
        ({"cron": None, "due": None, "runs": 0}, Level.BREACH, "has no schedule"),
        (
            {"runs": 0},
            Level.BREACH,
            "no run was started at 2026-11-23 02:00 UTC, when the last one was due, 10 h ago",
        ),
        ({"runs": 0, "planned": DUE}, Level.BREACH, "no run was started"),
        # The schedule was changed after that moment, or the DAG has just been unpaused.
        ({"runs": 0, "planned": DUE + timedelta(days=1)}, Level.OK, "on time"),
        ({"failed": 1}, Level.WARNING, "the last scheduled run, of 2026-11-23 02:00 UTC, failed"),
        ({"problem": "API_SERVER_ERROR"}, Level.BREACH, "does not tell"),
        ({"rpo": None, "paused": True}, Level.WARNING, "is paused"),
        ({"rpo": None, "problem": "x"}, Level.BREACH, "does not tell"),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, Any], level: Level, said: str) -> None:
    (found,) = judge(NOW, [replace(GOOD, **changes)])

    assert (found.component, found.subject) == ("database", "backup_database")
    assert found.level is level
    assert said in found.problem
    assert level is Level.OK or found.remedy


def test_a_run_is_missing_only_once_the_scheduler_had_time_to_start_it() -> None:
    quarter = timedelta(minutes=15)

    assert due_at(DAILY, now=DUE + quarter) == DUE
    assert due_at(DAILY, now=DUE + quarter - timedelta(seconds=1)) == DUE - timedelta(days=1)
    assert due_at(None, now=NOW) is None
