"""`retention` and `hold` as a person types them, over two directories."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from neuroca_backup.cli.app import app
from neuroca_backup.keyring.local import LocalKeyFile
from neuroca_backup.model.identity import BackupRef
from neuroca_backup.stores.local import LocalStore
from support.histories import BOTH, History

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _same_log() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def refs(tmp_path: Path) -> list[BackupRef]:
    """Eight backups of January 2026: all of them are older than anything is kept."""
    history = History()
    made = [history.put(0), history.put(1, parent=0), *(history.put(day) for day in range(2, 8))]
    for name in BOTH:
        store = LocalStore(name, tmp_path / name)
        store.initialise()
        for key, (data, _) in history.stores[name].objects.items():
            store.put(key, data)
    return made


@pytest.fixture
def run(tmp_path: Path, refs: list[BackupRef], monkeypatch: pytest.MonkeyPatch) -> Run:
    LocalKeyFile.generate(tmp_path / "key")
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


def test_without_apply_the_plan_is_shown_and_nothing_is_touched(
    run: Run, refs: list[BackupRef], tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*.json"))
    code, out, _ = run("retention", "run")
    assert code == 1, "it has to be confirmed"
    assert "database/postgres: 3 keep, 5 expire" in out
    assert "NEEDS --confirm: 5 of 8 verified backups" in out
    assert f"{refs[0].backup_id}  expire  older than 30 days" in out
    assert refs[7].backup_id not in out
    assert "Nothing was touched" in out
    assert f"{refs[7].backup_id}  keep " in run("retention", "run", "--all")[1]
    assert sorted(tmp_path.rglob("*.json")) == before


def test_the_plan_as_json_says_why(run: Run, refs: list[BackupRef]) -> None:
    _, out, _ = run("retention", "run", "--json")
    (plan,) = json.loads(out)["plans"]
    assert plan["decisions"][0] == {
        "backup_id": refs[7].backup_id,
        "fate": "keep",
        "reason": "one of the newest 3 verified backups",
        "size": 5,
    }


def test_too_many_at_once_are_refused_until_they_are_confirmed(
    run: Run, refs: list[BackupRef]
) -> None:
    code, _, err = run("retention", "run", "--apply")
    assert code == 1
    assert "more than 50 %" in err
    code, out, _ = run("retention", "run", "--apply", "--confirm")
    assert code == 0
    assert "5 expired, 0 deleted" in out
    assert "Swept: 0 objects" in out
    _, out, _ = run("list", "--json")
    listed = {one["backup_id"]: one for one in json.loads(out)["backups"]}
    assert listed[refs[0].backup_id]["expired"] is True
    assert listed[refs[0].backup_id]["verified"] is False
    assert listed[refs[7].backup_id]["expired"] is False
    assert "expired" in run("list")[1]
    assert "EXPIRED: can be taken back until" in run("show", refs[0].backup_id)[1]


def test_confirm_alone_is_a_mistake(run: Run) -> None:
    code, _, err = run("retention", "run", "--confirm")
    assert (code, "needs --apply" in err) == (2, True)
    assert run("retention", "run", "--json", "--apply")[0] == 2


def test_an_expired_backup_is_taken_back_with_what_it_needs(
    run: Run, refs: list[BackupRef]
) -> None:
    run("retention", "run", "--apply", "--confirm")
    code, out, _ = run("retention", "undelete", refs[1].backup_id, "--reason", "audit")
    assert code == 0
    assert f"{refs[0].backup_id} is taken back." in out
    assert f"{refs[1].backup_id} is taken back." in out
    assert f"{refs[1].backup_id} is held until" in out
    assert "EXPIRED" not in run("show", refs[0].backup_id)[1]
    code, _, err = run("retention", "undelete", refs[1].backup_id)
    assert code == 1
    assert "is not a backup that has expired" in err


def test_a_hold_is_set_listed_and_released(run: Run, refs: list[BackupRef]) -> None:
    name = refs[0].backup_id
    assert run("hold", "list")[1].strip() == "No backup is on hold."
    until = "2099-01-01T00:00:00Z"
    assert run("hold", "set", name, "--reason", "lawsuit", "--until", until)[0] == 0
    _, out, _ = run("hold", "list")
    assert name in out
    assert "lawsuit" in out
    (held,) = json.loads(run("hold", "list", "--json")[1])["holds"]
    assert (held["backup_id"], held["stands"]) == (name, True)
    shown = run("retention", "run", "--all")[1].splitlines()
    assert any(name in one and "on hold by" in one for one in shown)
    assert run("hold", "release", name)[0] == 0
    assert run("hold", "release", name)[0] == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--reason", " "], "--reason is empty"),
        (["--reason", "r", "--until", "2099-01-01"], "not a time with an offset"),
        (["--reason", "r", "--until", "soon"], "not a time with an offset"),
        (["--reason", "r", "--until", "2020-01-01T00:00:00Z"], "is over"),
    ],
)
def test_a_hold_that_means_nothing_is_refused(
    run: Run, refs: list[BackupRef], words: list[str], told: str, tmp_path: Path
) -> None:
    code, _, err = run("hold", "set", refs[0].backup_id, *words)
    assert code == 2
    assert told in err
    assert list(tmp_path.rglob("hold.json")) == []
