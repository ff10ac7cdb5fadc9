"""`recoveries` as a person types it, over two directories."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from neuroca_backup.cli.app import app
from neuroca_backup.model.recovery import EventKind
from neuroca_backup.stores.local import LocalStore
from support.recovering import AT, BOTH, Recovering

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _same_log() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def stores(tmp_path: Path) -> dict[str, LocalStore]:
    made = {name: LocalStore(name, tmp_path / name) for name in BOTH}
    for one in made.values():
        one.initialise()
    return made


@pytest.fixture
def recovering(stores: dict[str, LocalStore]) -> Recovering:
    """A drill that has ended, and an older one that goes on."""
    Recovering(stores, at=AT - timedelta(days=90), run="older")
    made = Recovering(stores)
    for minute, source in enumerate(("postgres", "redis", "working"), start=10):
        made.minute(minute).back(source)
    made.minute(20).tell(EventKind.FAILED, "postgres", problem="[red]bad[/] \x1b[31mthing")
    made.minute(21).back("postgres")
    made.minute(30).tell(EventKind.ENDED, outcome="recovered")
    return made


@pytest.fixture
def run(tmp_path: Path, stores: dict[str, LocalStore], monkeypatch: pytest.MonkeyPatch) -> Run:
    settings = {
        "schedule": {"database": "0 2 * * *"},
        "storage": {name: {"type": "local", "path": str(tmp_path / name)} for name in BOTH},
        "retention": {"database": "30d"},
        "encryption": {"key_management": "local", "local_key_file": str(tmp_path / "key")},
        "pipeline": {"spool": str(tmp_path / "spool")},
    }
    path = tmp_path / "backup.yaml"
    path.write_text(yaml.safe_dump({"backup": settings}))
    monkeypatch.setenv("NEUROCA_BACKUP_CONFIG", str(path))

    def call(*words: str) -> tuple[int, str, str]:
        ended = CliRunner().invoke(app, words)
        if ended.exception is not None and not isinstance(ended.exception, SystemExit):
            raise ended.exception
        return ended.exit_code, ended.stdout, ended.stderr

    return call


def test_without_recoveries_it_says_so(run: Run) -> None:
    assert run("recoveries", "list") == (0, "There is no recovery in the stores.\n", "")
    code, _, told = run("recoveries", "show", "latest")
    assert code == 1
    assert "There is no recovery" in told


def test_the_list_begins_with_the_newest_and_says_how_each_went(
    run: Run, recovering: Recovering
) -> None:
    code, told, _ = run("recoveries", "list")
    assert code == 0
    _, newest, older = told.splitlines()
    assert newest.startswith(recovering.ref.recovery_id)
    assert "3 of 3" in newest
    assert "database met, memory_tiers met" in newest
    assert newest.rstrip().endswith("recovered")
    assert "0 of 3" in older
    assert older.rstrip().endswith("it goes on")
    listed = json.loads(run("recoveries", "list", "--json")[1])
    assert [one["complete"] for one in listed["recoveries"]] == [True, False]


def test_a_recovery_is_shown_without_what_a_terminal_would_obey(
    run: Run, recovering: Recovering
) -> None:
    code, told, _ = run("recoveries", "show", "latest", "--events")
    assert code == 0
    assert "Everything is back and checked" in told
    assert "[red]bad[/]  [31mthing" in told
    assert "\x1b" not in told
    assert "ended" in told


def test_a_store_that_is_gone_is_named_and_the_other_is_enough(
    run: Run, recovering: Recovering, tmp_path: Path
) -> None:
    (tmp_path / "primary").rename(tmp_path / "away")
    code, told, warned = run("recoveries", "list")
    assert code == 0
    assert recovering.ref.recovery_id in told
    assert "without primary" in warned


def test_a_report_goes_to_a_new_file_and_never_over_another(
    run: Run, recovering: Recovering, tmp_path: Path
) -> None:
    file = tmp_path / "report.html"
    wanted = ("recoveries", "report", recovering.ref.recovery_id, "--format", "html")
    code, told, _ = run(*wanted, "--output", str(file))
    assert (code, told) == (0, "")
    assert file.read_text().startswith("<!doctype html>")
    code, _, error = run(*wanted, "--output", str(file))
    assert code == 2
    assert "exists already" in error
    code, _, error = run(*wanted, "--output", str(tmp_path / "none" / "x"))
    assert code == 2


def test_a_report_is_kept_beside_the_backups_only_when_asked(
    run: Run, recovering: Recovering, stores: dict[str, LocalStore]
) -> None:
    code, told, _ = run("recoveries", "report", "latest")
    assert code == 0
    assert told.startswith("# Recovery drill")
    assert not [one for one in stores["primary"].list() if "report" in one.key]
    assert run("recoveries", "report", "latest", "--store", "--format", "json")[0] == 0
    for store in stores.values():
        assert store.get(recovering.ref.attachment_key("report.md")).startswith(b"# Recovery")


def test_what_is_no_recovery_is_refused(run: Run, recovering: Recovering) -> None:
    code, _, told = run("recoveries", "show", "yesterday")
    assert code == 2
    assert "recoveries list" in told
    code, _, told = run("recoveries", "show", "20200101T000000Z-drill-00000000")
    assert code == 1
    assert "There is no" in told
