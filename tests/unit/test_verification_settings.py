"""The section `verification` of backup.yaml: defaults, mistakes, and what is dangerous in it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from neuroca_backup.errors import ConfigurationError
from neuroca_backup.services.checking.planning import Rules
from neuroca_backup.settings import Settings, load, warnings

SHIPPED = Path(__file__).resolve().parents[2] / "config" / "backup.yaml"


def settings(folder: Path, words: str) -> Settings:
    path = folder / "backup.yaml"
    path.write_text(f"{SHIPPED.read_text()}\n  verification: {{{words}}}\n")
    return load(path)


def test_the_rules_of_a_run_are_those_of_backup_yaml(tmp_path: Path) -> None:
    assert Rules.of(load(SHIPPED)) == Rules()
    words = "schedule: '0 */12 * * *', window: 2d, readable: 0, parsed: 100, longest: 90m"
    assert Rules.of(settings(tmp_path, words)) == Rules(
        window=timedelta(days=2),
        schedule="0 */12 * * *",
        longest=timedelta(minutes=90),
        readable=0,
        parsed=100,
    )


@pytest.mark.parametrize(
    ("words", "field"),
    [
        ("window: 7", "verification.window"),
        ("parsed: 101", "verification.parsed"),
        ("readable: -1", "verification.readable"),
        ("parsed: '10'", "verification.parsed"),
        ("schedule: daily", "verification.schedule"),
        ("windows: 7d", "windows"),
    ],
)
def test_a_mistake_is_named_by_its_path(tmp_path: Path, words: str, field: str) -> None:
    with pytest.raises(ConfigurationError, match=field):
        settings(tmp_path, words)


def test_a_window_that_the_schedule_cannot_keep_is_warned_of(tmp_path: Path) -> None:
    assert not [one for one in warnings(load(SHIPPED)) if "verification" in one]
    found = warnings(settings(tmp_path, "schedule: '0 7 * * 1', window: 3d"))
    (told,) = (one for one in found if "verification" in one)
    assert told.startswith("backup.verification.window: 3d cannot be met, because '0 7 * * 1' ")
