"""The watcher in Airflow's own triggerer: from a file that is edited to a run that is due."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
import yaml

from dags.stand import REPOSITORY, airflow_environment
from support.files_runs import FilesBench
from support.registering import register

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from dags.stand import Airflow

# Seconds; what was promised for an edit, and how long nothing may happen after a touch.
PROMISED = 60.0
QUIET = 6.0
STARTING = 90.0


class Triggerer:
    """Airflow's triggerer over a configuration that is watched every second."""

    def __init__(self, home: Path, environment: Mapping[str, str], log: Path) -> None:
        self._home = home
        self._environment = environment
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, *words: str) -> None:
        """Run one of Airflow's commands to its end."""
        done = subprocess.run(
            [sys.executable, "-m", "airflow", *words],
            env=self._environment,
            cwd=self._home,
            capture_output=True,
            text=True,
            timeout=STARTING,
            check=False,
        )
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]

    def start(self) -> None:
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "airflow", "triggerer", "--skip-serve-logs"],
                env=self._environment,
                cwd=self._home,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill(self) -> None:
        """End it as a power cut would, with the process that runs the triggers."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def ask(self, question: str) -> list[tuple[object, ...]]:
        """Return the rows that the metadata database has for `question`."""
        place = f"file:{self._home / 'airflow.db'}?mode=ro"
        with closing(sqlite3.connect(place, uri=True, timeout=30)) as database:
            return database.execute(question).fetchall()

    def events(self) -> int:
        """Return how often the configuration was announced as changed."""
        ((count,),) = self.ask(
            "SELECT count(*) FROM asset_event JOIN asset ON asset.id = asset_id"
            " WHERE uri LIKE 'x-neuroca-change://%'"
        )
        return int(str(count))

    def handled(self) -> str:
        """Return what the watcher has handled last, "" before it has looked twice."""
        return str(self.ask("SELECT value FROM asset_state_store WHERE key = 'handled'"))

    def due(self) -> list[tuple[object, ...]]:
        """Return the DAGs that the scheduler will start because of an asset."""
        return self.ask("SELECT target_dag_id FROM asset_dag_run_queue")

    def wait_for(self, what: Callable[[], bool], *, seconds: float) -> float:
        """Return after how many seconds `what` was true."""
        begun = time.monotonic()
        while not what():
            assert self._process is None or self._process.poll() is None, self._log.read_text()
            waited = time.monotonic() - begun
            assert waited < seconds, self._log.read_text()[-4000:]
            time.sleep(0.2)
        return time.monotonic() - begun


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FilesBench:
    """A configuration that has been backed up."""
    register(monkeypatch)
    (tmp_path / "bench").mkdir()
    made = FilesBench(tmp_path / "bench")
    (made.etc / "app.yaml").write_text("answer: 42\n")
    document = made.document()
    del document["sources"]["models"]
    document["sources"]["configuration"] = {
        "component": "configuration",
        "engine": "filetree",
        "options": {"parameters": [str(made.etc)]},
    }
    made.more = {"sources": document["sources"], "watch": {"every": "1s", "settle": "1s"}}
    made.runtime = made.fresh()
    made.back_up()
    return made


@pytest.fixture
def triggerer(
    bench: FilesBench, airflow: Callable[[Mapping[str, str]], Airflow], tmp_path: Path
) -> Iterator[Triggerer]:
    home = airflow({}).home
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")},
        **airflow_environment(home),
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "NEUROCA_BACKUP_CONFIG": str(bench.write_yaml()),
        "PYTHONPATH": str(REPOSITORY / "plugins"),
    }
    made = Triggerer(home, environment, tmp_path / "triggerer.log")
    made.run("dags", "reserialize")
    made.start()
    try:
        yield made
    finally:
        made.kill()


def test_an_edit_starts_a_backup_a_touch_does_not_and_a_dead_triggerer_loses_neither(
    bench: FilesBench, triggerer: Triggerer
) -> None:
    file = bench.etc / "app.yaml"
    assert yaml.safe_load(file.read_text()) == {"answer": 42}
    triggerer.wait_for(lambda: triggerer.handled() != "[]", seconds=STARTING)
    assert triggerer.events() == 0, "what is backed up is no news"

    os.utime(file, (1, 1))
    time.sleep(QUIET)
    assert triggerer.events() == 0

    file.write_text("answer: 43\n")
    assert triggerer.wait_for(lambda: triggerer.events() == 1, seconds=PROMISED) < PROMISED
    assert triggerer.due() == [("backup_configuration",)]

    bench.back_up()
    triggerer.kill()
    file.write_text("answer: 44\n")
    triggerer.start()
    triggerer.wait_for(lambda: triggerer.events() == 2, seconds=STARTING)
