"""`objectives` as a person types it, over two directories."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from neuroca_backup.catalog import RestoreRecord
from neuroca_backup.cli.app import app
from neuroca_backup.keyring.local import LocalKeyFile
from neuroca_backup.runtime import Runtime
from neuroca_backup.stores.local import LocalStore
from support.histories import BEGIN, BOTH, DAY, History

Run = Callable[..., tuple[int, str]]


@pytest.fixture(autouse=True)
def _same_log() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Lay out backups of these ages in hours, one restore test, and run the command."""
    LocalKeyFile.generate(tmp_path / "key")
    source = {"component": "database", "engine": "postgresql", "connection": "pg"}
    settings = {
        "schedule": {"database": "0 2 * * *"},
        "storage": {name: {"type": "local", "path": str(tmp_path / name)} for name in BOTH},
        "retention": {"database": "30d"},
        "encryption": {"key_management": "local", "local_key_file": str(tmp_path / "key")},
        "sources": {"postgres": source},
    }
    path = tmp_path / "backup.yaml"
    path.write_text(yaml.safe_dump({"backup": settings}))
    monkeypatch.setenv("NEUROCA_BACKUP_CONFIG", str(path))

    def call(*words: str, ages: tuple[float, ...] = (), tested: bool = True) -> tuple[int, str]:
        now = datetime.now(UTC)
        history = History()
        history.now = now
        refs = [history.put((now - timedelta(hours=age) - BEGIN) / DAY) for age in ages]
        for name in BOTH:
            store = LocalStore(name, tmp_path / name)
            store.initialise()
            for key, (data, _) in history.stores[name].objects.items():
                store.put(key, data)
        if tested:
            history.catalog.record_restore(
                RestoreRecord(
                    restore_id="restore-1",
                    backup_id=refs[0].backup_id,
                    store="primary",
                    target="sandbox",
                    actor="somebody",
                    started_at=now,
                    finished_at=now,
                    seconds={"load": 10.0},
                    bytes_restored=100_000_000,
                    outcome="restored",
                )
            )
        monkeypatch.setattr(Runtime, "catalog", history.catalog)
        ended = CliRunner().invoke(app, ["objectives", *words])
        if ended.exception is not None and not isinstance(ended.exception, SystemExit):
            raise ended.exception
        return ended.exit_code, ended.stdout

    return call


def test_inside_all_objectives_the_tables_say_so_and_the_code_is_zero(run: Run) -> None:
    code, out = run(ages=(1.01, 30))

    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert ["database", "all", "1", "h", "24", "h", "ok"] in lines
    row = next(line for line in lines if line[:2] == ["database", "postgres"])
    assert row[4:] == ["1", "h", "24", "h", "ok", "primary,", "secondary"]
    assert "full_system" in out
    assert "1 of 1 (100 %)" in out
    assert "10.0 MB/s" in out
    assert "too few to tell (1)" in out
    assert "Every objective is kept." in out


def test_a_breach_is_named_and_the_code_is_one(run: Run) -> None:
    code, out = run(ages=(25.01,))

    assert code == 1
    assert "BREACH: database/postgres: has its last verified backup from 25 h ago" in out
    assert out.count("BREACH: ") == 1, "the component is in the table"


def test_nothing_known_is_not_zero(run: Run) -> None:
    code, out = run(tested=False)

    assert code == 1
    assert "there is no backup at all" in out
    assert "not known" in out
    assert "no restore of it was ever tested" in out


def test_json_has_all_of_it_for_programs(run: Run) -> None:
    code, out = run("--json", "--component", "database", ages=(25.01,))
    found: dict[str, Any] = json.loads(out)

    assert (code, found["level"]) == (1, "breach")
    (age,) = (f for f in found["findings"] if f["kind"] == "rpo" and f["subject"] == "postgres")
    assert (age["limit"], round(age["age"] / 3600)) == (86_400, 25)
    assert found["sources"][0]["verified_in"] == ["primary", "secondary"]
    assert found["forecast"]["full_system"]["measured"] is True
    assert found["history"]["postgres"]["tests"]["share"] == 1.0
