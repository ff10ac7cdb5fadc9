"""An Airflow of its own for these tests: chosen before anything imports Airflow."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dags.stand import ONE_SOURCE, REPOSITORY, YAML, Airflow, airflow_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow.sdk import DAG

_home = Path(tempfile.mkdtemp(prefix="neuroca-airflow-"))
atexit.register(shutil.rmtree, _home, ignore_errors=True)

if "airflow" not in sys.modules:
    os.environ.update(airflow_environment(_home))


@pytest.fixture
def configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Write a backup.yaml and make it the one that DAG files read; return its path."""

    def write(text: str | None = None, *, mode: str = "staged", sources: str = ONE_SOURCE) -> Path:
        path = tmp_path / "backup.yaml"
        path.write_text(text or YAML.format(root=tmp_path, mode=mode, sources=sources))
        monkeypatch.setenv("NEUROCA_BACKUP_CONFIG", str(path))
        return path

    return write


@pytest.fixture
def parsed() -> Callable[[], dict[str, DAG]]:
    """Parse the dags folder as Airflow does; every file must be free of errors and warnings."""

    def parse() -> dict[str, Any]:
        from airflow.dag_processing.dagbag import DagBag  # noqa: PLC0415 - after the environment

        bag = DagBag(str(REPOSITORY / "dags"))
        assert bag.import_errors == {}
        assert bag.captured_warnings == {}
        return dict(bag.dags)

    return parse


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An Airflow home with a fresh metadata database."""
    home = tmp_path_factory.mktemp("airflow")
    subprocess.run(
        [sys.executable, "-c", "from airflow.utils.db import initdb; initdb()"],
        env={**os.environ, **airflow_environment(home)},
        cwd=home,
        check=True,
        capture_output=True,
        timeout=240,
    )
    return home


@pytest.fixture(scope="session")
def airflow(
    migrated: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Mapping[str, str]], Airflow]:
    """Make an Airflow with a metadata database of its own and further environment variables."""

    def make(environment: Mapping[str, str]) -> Airflow:
        home = tmp_path_factory.mktemp("home") / "airflow"
        shutil.copytree(migrated, home)
        return Airflow(home=home, environment=environment)

    return make
