"""`audit`, `erase` and `keys` as a person types them, over two directories."""

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
from support.reusing import Stand

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _same_log() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def stand(tmp_path: Path) -> Stand:
    return Stand(tmp_path)


@pytest.fixture
def ref(stand: Stand) -> BackupRef:
    stand.write(note=b"one")
    return stand.back_up()


@pytest.fixture
def run(tmp_path: Path, ref: BackupRef, monkeypatch: pytest.MonkeyPatch) -> Run:
    path = tmp_path / "backup.yaml"
    monkeypatch.setenv("NEUROCA_BACKUP_CONFIG", str(path))
    write(tmp_path)

    def call(*words: str) -> tuple[int, str, str]:
        ended = CliRunner().invoke(app, words)
        if ended.exception is not None and not isinstance(ended.exception, SystemExit):
            raise ended.exception
        return ended.exit_code, ended.stdout, ended.stderr

    return call


def write(root: Path, *, key: str = "local.key", **more: object) -> None:
    settings = {
        "schedule": {"database": "0 2 * * *"},
        "storage": {
            name: {"type": "local", "path": str(root / name)} for name in ("primary", "secondary")
        },
        "retention": {},
        "encryption": {"key_management": "local", "local_key_file": str(root / key)},
        "pipeline": {"spool": str(root / "spool")},
        **more,
    }
    (root / "backup.yaml").write_text(yaml.safe_dump({"backup": settings}))


def lines(root: Path, store: str = "secondary") -> list[Path]:
    return sorted((root / store / "audit").rglob("*.json"))


def test_the_trail_is_listed_verified_and_exported(
    run: Run, ref: BackupRef, tmp_path: Path
) -> None:
    assert run("hold", "set", ref.backup_id, "--reason", "incident 12")[0] == 0
    code, out, _ = run("audit", "list", "--json")
    assert code == 0
    events = json.loads(out)["events"]
    assert [one["action"] for one in events[:2]] == ["hold", "verify"]
    assert events[0]["details"]["reason"] == "incident 12"
    assert "@" in events[0]["actor"]
    _, out, _ = run("audit", "list", "--action", "verify", "--subject", ref.backup_id)
    assert "sound" in out
    assert "incident" not in out

    code, out, _ = run("audit", "verify")
    assert (code, "every store has every event" in out) == (0, True)
    kept = tmp_path / "trail.jsonl"
    assert run("audit", "export", "--output", str(kept))[0] == 0
    assert run("audit", "export", "--output", str(kept))[0] == 2
    assert run("audit", "verify", "--against", str(kept))[0] == 0


def test_an_edited_and_a_missing_line_are_named_with_an_exit_code_of_their_own(
    run: Run, tmp_path: Path
) -> None:
    edited, *_, last = lines(tmp_path)
    edited.write_bytes(edited.read_bytes().replace(b"backup", b"bakcup"))
    code, out, _ = run("audit", "verify")
    assert code == 4
    assert f"CHANGED secondary:audit/000000/{edited.name}: was edited or damaged" in out
    last.unlink()
    code, out, _ = run("audit", "verify", "--json")
    assert code == 4
    assert json.loads(out)["sound"] is False


def test_a_store_that_was_away_lacks_lines_until_they_are_synced(run: Run, tmp_path: Path) -> None:
    (tmp_path / "secondary").rename(tmp_path / "away")
    code, _, err = run("audit", "verify")
    assert (code, "not known: secondary" in err) == (3, True)
    (tmp_path / "away").rename(tmp_path / "secondary")
    for one in lines(tmp_path):
        one.unlink()
    code, out, _ = run("audit", "sync")
    assert (code, "primary: 0 events" in out) == (0, True)
    assert len(lines(tmp_path)) == len(lines(tmp_path, "primary"))


def test_an_erasure_asks_for_the_id_and_prints_its_certificate(
    run: Run, ref: BackupRef, tmp_path: Path
) -> None:
    words = ("erase", ref.backup_id, "--reason", "a court order")
    code, _, err = run(*words, "--confirm", "yes")
    assert (code, "nothing was erased" in err) == (2, True)
    assert (tmp_path / "primary" / ref.manifest_key).exists()
    assert run("erase", ref.backup_id, "--reason", " ")[0] == 2
    run("hold", "set", ref.backup_id, "--reason", "incident")
    code, _, err = run(*words, "--confirm", ref.backup_id)
    assert (code, "on hold by" in err) == (1, True)
    run("hold", "release", ref.backup_id)

    code, out, err = run(*words, "--confirm", ref.backup_id)

    assert code == 0, err
    assert "No recipient can open it any more" in out
    assert not (tmp_path / "primary" / ref.prefix).exists()
    document = tmp_path / "secondary" / "erasures" / ref.component / f"{ref.backup_id}.json"
    assert json.loads(document.read_text())["body"]["reason"] == "a court order"
    assert run(*words, "--confirm", ref.backup_id)[0] == 1
    assert run("audit", "verify")[0] == 0


def test_keys_are_shown_as_old_rotated_and_shown_as_current(
    run: Run, ref: BackupRef, tmp_path: Path
) -> None:
    code, out, _ = run("keys", "status")
    assert code == 0, out
    LocalKeyFile.generate(tmp_path / "new.key")
    moved = {"previous_local_key_files": [str(tmp_path / "local.key")]}
    write(tmp_path, key="new.key", key_rotation=moved)
    code, out, _ = run("keys", "status")
    assert code == 1
    assert f"secondary: {ref.backup_id}, wrapped 0 days ago; still opened by local" in out
    code, out, err = run("keys", "rotate", "--purge-old")
    assert (code, "2 of 2 wrapped anew" in out) == (0, True), err
    (tmp_path / "local.key").unlink()
    code, out, _ = run("keys", "status", "--json")
    assert code == 0
    assert json.loads(out)["sources"][0]["current"] == 2
