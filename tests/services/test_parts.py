"""Sources that are many things: named, backed up, listed and restored one by one."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from neuroca_backup import engines
from neuroca_backup.cli.app import app
from neuroca_backup.errors import (
    ConfigurationError,
    EmptySourceError,
    NotFoundError,
)
from neuroca_backup.model.identity import is_source_name, part_name, whole_source
from support.files_runs import FilesBench
from support.registering import register

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FilesBench:
    """Two models, and a configuration."""
    register(monkeypatch)
    made = FilesBench(tmp_path)
    (made.etc / "app.yaml").write_text("answer: 42\n")
    for name in ("Llama 3", "phi"):
        (made.models / name).mkdir()
        (made.models / name / "model.bin").write_text(f"weights of {name}")
    return made


@pytest.fixture
def command(bench: FilesBench, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run the command in this process; return its exit code and what it printed."""
    monkeypatch.setenv("NEUROCA_BACKUP_CONFIG", str(bench.write_yaml()))

    def run(*words: str) -> tuple[int, str, str]:
        ended = CliRunner().invoke(app, words)
        return ended.exit_code, ended.stdout, ended.stderr

    return run


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("llama_3", "models__llama_3"),
        ("3b", "models__3b"),
        ("Llama 3", "models__llama_3_08b9fc24"),
        ("llama-3", "models__llama_3_e3352e1e"),
        ("a" * 80, f"models__{'a' * 46}_0f45e858"),
        ("ü", "models__607474ca"),
    ],
)
def test_a_part_is_named_after_itself_as_far_as_ids_allow(part: str, name: str) -> None:
    found = part_name("models", part)

    assert found == name
    assert is_source_name(found)
    assert whole_source(found) == "models"
    assert len(found) <= 63


def test_no_two_parts_become_one() -> None:
    parts = ["llama_3", "Llama 3", "llama-3", "LLAMA_3", "llama__3", "_llama_3", "llama_3_"]

    assert len({part_name("models", part) for part in parts}) == len(parts)


def test_a_part_without_a_name_and_a_source_without_room_are_refused() -> None:
    for source, part in (("models", ""), ("m" * 55, "llama")):
        with pytest.raises(ConfigurationError, match="cannot be given a name"):
            part_name(source, part)


def test_a_part_is_resolved_by_its_name_and_the_whole_or_a_stranger_is_not(
    bench: FilesBench,
) -> None:
    llama, phi = bench.runtime.parts("models")

    assert (llama.name, phi.source) == ("Llama 3", "models__phi")
    subject = bench.runtime.subject(llama.source)
    assert (subject.part, subject.options["part"]) == ("Llama 3", "Llama 3")
    assert subject.name == llama.source
    for wanted in ("models", "models__gone"):
        with pytest.raises(NotFoundError, match=f"has no part {wanted}") as caught:
            bench.runtime.subject(wanted)
        assert "models__phi" in caught.value.remedy
    with pytest.raises(ConfigurationError, match="configuration has no parts"):
        bench.runtime.subject("configuration__x")
    with pytest.raises(ConfigurationError, match="'elsewhere__x' is not a source"):
        bench.runtime.subject("elsewhere__x")
    assert [one.source for one in bench.runtime.parts("configuration")] == ["configuration"]
    assert [one.source for one in bench.runtime.parts("models__phi")] == ["models__phi"]


def test_a_source_without_any_part_is_an_error(tmp_path: Path, bench: FilesBench) -> None:
    bench.models.rename(tmp_path / "aside")
    bench.models.mkdir()

    with pytest.raises(EmptySourceError, match="nothing in models"):
        bench.runtime.parts("models")


def test_the_engines_of_the_tests_have_the_abilities_that_they_are_for(bench: FilesBench) -> None:
    pieces, files = engines.named("pieces"), engines.named("plain_files")

    assert isinstance(pieces, engines.Dividing)
    assert isinstance(files, engines.Fingerprinting)
    assert not isinstance(files, engines.Dividing)
    assert bench.runtime.parts("models")


def test_the_command_backs_up_every_part_once_lists_them_and_restores_one(
    bench: FilesBench, command: Command, tmp_path: Path
) -> None:
    code, out, err = command("backup", "models", "configuration")
    assert code == 0, err
    assert "of model_weights is complete: " in out
    assert "of configuration is complete: configuration" in out

    time.sleep(1.1)  # within one second, chance decides which of two backups is the newer one
    code, out, _ = command("backup", "models")
    assert code == 0
    assert "models__phi is unchanged: it is what" in out
    assert out.count(" ago") == 2, "when each was last seen to be unchanged"

    time.sleep(1.1)
    code, out, _ = command("backup", "models__phi", "--type", "full")
    assert code == 0
    assert "is unchanged" not in out

    code, out, _ = command("list", "--source", "models", "--json")
    backups = json.loads(out)["backups"]
    assert [one["source"].startswith("models__") for one in backups] == [True] * 3
    llama = next(one for one in backups if one["source"] != "models__phi")
    assert llama["unchanged_at"] == llama["current_at"]
    code, out, _ = command("show", llama["backup_id"])
    assert "unchanged   at " in out

    assert command("verify", "--source", "models")[0] == 0
    code, _, err = command("restore", "models", "--sandbox", "--no-wait")
    assert code == 1
    assert "models is many things" in err
    assert "models__phi" in err
    place = tmp_path / "restored"
    code, _, err = command("restore", "models__phi", "--target-directory", str(place))
    assert code == 0, err
    assert (place / "model.bin").read_text() == "weights of phi"
    code, out, err = command(
        *("restore", "--set", "latest", "--component", "model_weights", "--sandbox", "--no-wait")
    )
    assert code == 0, err
    assert "2 of 2 sources" in out


def test_the_command_goes_on_where_the_parts_of_one_source_cannot_be_found(
    bench: FilesBench, command: Command
) -> None:
    for path in bench.models.iterdir():
        (path / "model.bin").unlink()
        path.rmdir()

    code, out, err = command("backup", "models", "configuration")

    assert code == 1
    assert "There is nothing in models" in err
    assert "of configuration is complete" in out
    assert "no verified backup of models" in err
