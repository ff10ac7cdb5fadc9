"""An Airflow for one test: its environment, its settings, and a way to run a DAG in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

REPOSITORY = Path(__file__).resolve().parents[2]
DRIVER = Path(__file__).with_name("drive_airflow.py")

YAML = """\
backup:
  schedule:
    database: "0 2 * * *"
  storage:
    primary: {{type: local, path: {root}/primary}}
    secondary: {{type: local, path: {root}/secondary}}
  retention: {{}}
  encryption:
    key_management: local
    local_key_file: {root}/keys.json
  pipeline:
    mode: {mode}
    spool: {root}/spool
{sources}"""
ONE_SOURCE = """\
  sources:
    postgres: {component: database, engine: postgresql, connection: neuroca_postgres}
"""


def airflow_environment(home: Path, *, dags: Path = REPOSITORY / "dags") -> dict[str, str]:
    """Return the environment of an Airflow that lives in `home` and knows this repository."""
    return {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(REPOSITORY / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
    }


@dataclass(frozen=True)
class Outcome:
    """What a run left: states, labels of mapped tasks, tries, XComs, asset events, its output."""

    state: str
    tasks: dict[str, str]
    labels: dict[str, str | None]
    tries: dict[str, int]
    xcoms: dict[str, Any]
    events: list[dict[str, Any]]
    output: str


@dataclass(frozen=True)
class Airflow:
    """An Airflow in a process of its own for every run; the metadata database stays."""

    home: Path
    environment: Mapping[str, str]

    def run(
        self,
        dag_id: str,
        conf: Mapping[str, Any] | None = None,
        *,
        dags: Path | None = None,
        **environment: str,
    ) -> Outcome:
        """Run a DAG to its end; an empty variable in `environment` is one taken away."""
        folder = dags or REPOSITORY / "dags"
        answer = self.home / "answer.json"
        answer.unlink(missing_ok=True)
        done = subprocess.run(
            [
                *(sys.executable, str(DRIVER), str(folder), dag_id),
                *(json.dumps(conf or {}), str(answer)),
            ],
            env={
                **{k: v for k, v in os.environ.items() if not k.startswith("AIRFLOW")},
                **airflow_environment(self.home, dags=folder),
                "PYTHONPATH": str(REPOSITORY / "plugins"),
                **{k: v for k, v in {**self.environment, **environment}.items() if v},
            },
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        output = done.stdout + done.stderr
        assert done.returncode == 0, output[-8000:]
        return Outcome(**json.loads(answer.read_text()), output=output)

    def everything_written(self) -> bytes:
        """Return all bytes of the metadata database and the log files."""
        files = [path for path in self.home.rglob("*") if path.is_file()]
        return b"\n".join(path.read_bytes() for path in files if path.suffix != ".pem")
