"""`model-export` and `model-import`: what is exported comes back, and nothing is half done."""

from __future__ import annotations

import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from neuroca_backup.cli.app import app
from neuroca_backup.keyring.local import LocalKeyFile
from neuroca_backup.stores.local import LocalStore
from support import model_files


@dataclass(frozen=True)
class Installation:
    """A backup.yaml whose only source are two models."""

    folder: Path

    @property
    def models(self) -> Path:
        return self.folder / "models"

    def run(self, *words: str, code: int = 0) -> str:
        given = ["--config-path", str(self.folder / "backup.yaml"), *words]
        ended = CliRunner().invoke(app, given, catch_exceptions=False)
        assert ended.exit_code == code, ended.output
        return ended.output

    def tree(self, home: Path) -> dict[str, bytes]:
        return {
            path.relative_to(home).as_posix(): path.read_bytes()
            for path in sorted(home.rglob("*"))
            if path.is_file()
        }


@pytest.fixture
def installed(tmp_path: Path) -> Installation:
    for name in ("primary", "secondary"):
        LocalStore(name, tmp_path / name).initialise()
    LocalKeyFile.generate(tmp_path / "local.key")
    for name in ("gemma", "llama"):
        home = tmp_path / "models" / name
        home.mkdir(parents=True)
        (home / "model.safetensors").write_bytes(model_files.safetensors(weight=name.encode()))
        (home / "config.json").write_text(name)
    settings = {
        "schedule": {"model_weights": "0 4 * * 0"},
        "storage": {
            name: {"type": "local", "path": str(tmp_path / name)}
            for name in ("primary", "secondary")
        },
        "retention": {"model_weights": "180d"},
        "encryption": {
            "key_management": "local",
            "local_key_file": str(tmp_path / "local.key"),
        },
        "pipeline": {"spool": str(tmp_path / "spool")},
        "sources": {
            "models": {
                "component": "model_weights",
                "engine": "model_weights",
                "options": {"roots": [str(tmp_path / "models")]},
            }
        },
    }
    (tmp_path / "backup.yaml").write_text(yaml.safe_dump({"backup": settings}))
    return Installation(tmp_path)


@pytest.mark.parametrize("name", ["export", "export.tar"])
def test_exported_models_come_back_below_a_directory(installed: Installation, name: str) -> None:
    output = installed.folder / name
    said = installed.run("model-export", "--output", str(output))
    assert said.count("1 models") == 2
    assert stat.S_IMODE(output.stat().st_mode) & 0o077 == 0
    place = installed.folder / "restored"
    words = ("model-import", "--input", str(output))
    assert "Nothing was touched" in installed.run(*words)
    assert not place.exists()
    installed.run(*words, "--target-directory", str(place))
    assert installed.tree(place) == installed.tree(installed.models)
    assert not list((installed.folder / "spool").iterdir())


def test_one_model_alone_is_exported_and_imported(installed: Installation) -> None:
    output = installed.folder / "export"
    assert "gemma, llama" in installed.run(
        "model-export", "--output", str(output), "--model", "lama", code=1
    )
    assert not output.exists()
    installed.run("model-export", "--output", str(output), "--model", "llama")
    installed.run("model-import", "--input", str(output), "--model", "gemma", code=1)
    place = installed.folder / "restored"
    installed.run("model-import", "--input", str(output), "--target-directory", str(place))
    assert [path.name for path in place.iterdir()] == ["llama"]


def test_an_import_in_place_wants_its_word_and_keeps_what_it_replaces(
    installed: Installation,
) -> None:
    output = installed.folder / "export"
    installed.run("model-export", "--output", str(output))
    whole = installed.tree(installed.models)
    (installed.models / "gemma" / "config.json").write_text("changed")
    words = ("model-import", "--input", str(output), "--model", "gemma", "--in-place")
    installed.run(*words, code=2)
    installed.run(*words, "--confirm", "models")
    (kept,) = installed.models.glob("gemma.neuroca-replaced-*")
    assert (kept / "config.json").read_text() == "changed"
    shutil.rmtree(kept)
    assert installed.tree(installed.models) == whole


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("harm", [_cut, Path.unlink])
def test_a_damaged_export_is_refused_before_anything_is_touched(
    installed: Installation, harm: Callable[[Path], None]
) -> None:
    output = installed.folder / "export"
    installed.run("model-export", "--output", str(output))
    for path in sorted(output.rglob("tree.tar")):
        harm(path)
    place = installed.folder / "restored"
    installed.run("model-import", "--input", str(output), "--target-directory", str(place), code=4)
    assert not place.exists()


def test_a_torn_model_is_not_exported(installed: Installation) -> None:
    _cut(installed.models / "llama" / "model.safetensors")
    output = installed.folder / "export"
    installed.run("model-export", "--output", str(output), code=3)
    assert [path.name for path in installed.folder.glob("*export*")] == []
