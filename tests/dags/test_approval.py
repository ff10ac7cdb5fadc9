"""The approval of a restore in place, answered by two users through Airflow's own API."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
import yaml

from dags.stand import REPOSITORY, airflow_environment
from neuroca_backup import sandbox
from neuroca_backup.demo.airflow_api import AirflowApi
from neuroca_backup.errors import BackupError
from support.wiring import add_rows, connection, count_rows, local_places, scratch_database, session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from concurrent.futures import Future
    from pathlib import Path

    from dags.stand import Airflow, Outcome
    from neuroca_backup.model.endpoint import Endpoint

DATABASE = "approved_neuroca"
# Whom `dag.test()` names as the one who triggered a run, and another person.
TRIGGERER, OTHER = "dag_test", "bob"
STARTING = 120.0
FORM = {"source": "postgres", "target": "in_place", "confirm": "postgres"}

# What Airflow's scheduler does every 15 s, of which no other part is wanted here.
OVERDUE = """
from datetime import timedelta
from airflow.jobs.job import Job
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from sqlalchemy import select
with create_session() as session:
    (waiting,) = session.scalars(select(TaskInstance).where(TaskInstance.state == "awaiting_input"))
    waiting.trigger_timeout -= timedelta(days=2)
SchedulerJobRunner(Job()).check_awaiting_input_timeouts()
"""


@dataclass
class Stand:
    """A source with a backup of 200 rows and a service, an Airflow, and its API by user."""

    folder: Path
    source: Endpoint
    airflow: Airflow
    url: str
    home: Path

    def calls(self) -> list[str]:
        """What the service was asked to do, but for its state."""
        path = self.folder / "calls"
        words = path.read_text().split() if path.exists() else []
        path.unlink(missing_ok=True)
        return [word for word in words if word != "status"]

    def user(self, name: str) -> AirflowApi:
        passwords = json.loads(
            (self.home / "simple_auth_manager_passwords.json.generated").read_text()
        )
        return AirflowApi(self.url, user=name, password=passwords[name])

    @contextmanager
    def run(self, **form: Any) -> Iterator[Future[Outcome]]:
        with ThreadPoolExecutor(1) as pool:
            yield pool.submit(self.airflow.run, "restore", {**FORM, **form})

    def asked(self, run: Future[Outcome], *, but_not: str = "") -> dict[str, Any]:
        """Return the question that waits for an answer; `but_not` is when one was answered."""
        deadline = time.monotonic() + STARTING
        while time.monotonic() < deadline:
            if run.done():
                raise AssertionError(run.result().output[-8000:])
            waiting = self._waiting()
            if waiting and waiting[0].get("responded_at") != but_not:
                return waiting[0]
            time.sleep(0.2)
        raise AssertionError("nobody was asked")

    def _waiting(self) -> list[dict[str, Any]]:
        path = "/dags/restore/dagRuns/~/hitlDetails?response_received=false&state=awaiting_input"
        found: list[dict[str, Any]] = self.user(OTHER)._get(path)["hitl_details"]
        return found

    def let_the_time_pass(self) -> None:
        """Put the deadline of the question into the past, and let the scheduler look for such."""
        done = subprocess.run(
            [sys.executable, "-c", OVERDUE],
            env=environment_of(self.airflow),
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=STARTING,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-4000:]

    def answer(self, question: Mapping[str, Any], word: str, *, by: str) -> None:
        instance = question["task_instance"]
        run = quote(instance["dag_run_id"], safe="")
        path = f"/dags/restore/dagRuns/{run}/taskInstances/approve/-1/hitlDetails"
        self.user(by)._authorised("PATCH", path, {"chosen_options": [word], "params_input": {}})


@pytest.fixture(scope="module")
def stand(
    tmp_path_factory: pytest.TempPathFactory,
    airflow: Callable[[Mapping[str, str]], Airflow],
) -> Iterator[Stand]:
    root, folder = tmp_path_factory.mktemp("servers"), tmp_path_factory.mktemp("approval")
    try:
        source = sandbox.start(root, ["postgres"])["postgres"]
        with scratch_database(source, DATABASE) as database:
            environment = settings(folder, database)
            made = airflow(environment)
            add_rows_after_a_backup(environment, database)
            with api_server(made) as url:
                yield Stand(folder, database, made, url, made.home)
    finally:
        sandbox.stop(root)


def settings(folder: Path, source: Endpoint) -> dict[str, str]:
    """Write a backup.yaml with a service that is a file; return the environment that names it."""
    places = local_places(folder)
    program = folder / "api"
    program.write_text(
        '#!/bin/sh\ncd "$(dirname "$0")"; echo "$1" >> calls\ncase "$1" in\n'
        "  status) [ -e running ] || exit 3 ;;\n  stop) rm running ;;\n  start) touch running ;;\n"
        "esac\n"
    )
    program.chmod(0o700)
    (folder / "running").touch()
    words = {word: [str(program), word] for word in ("status", "stop", "start")}
    backup = {
        "schedule": {"database": "0 2 * * *"},
        "storage": places.storage,
        "retention": {},
        "encryption": places.encryption,
        "pipeline": {"spool": str(folder / "spool")},
        "services": {"database": [{"command": "api", "timeout": "1m", **words}]},
        "sources": {
            "postgres": {
                "component": "database",
                "engine": "postgresql",
                "connection": "nca_postgres",
                "options": {"databases": [DATABASE]},
            }
        },
    }
    (folder / "backup.yaml").write_text(yaml.safe_dump({"backup": backup}))
    return {
        "NEUROCA_BACKUP_CONFIG": str(folder / "backup.yaml"),
        "AIRFLOW_CONN_NCA_POSTGRES": connection(source, "postgres"),
    }


def add_rows_after_a_backup(environment: Mapping[str, str], source: Endpoint) -> None:
    subprocess.run(
        [sys.executable, "-m", "neuroca_backup", "backup", "postgres"],
        env={**os.environ, **environment, "PYTHONPATH": str(REPOSITORY / "plugins")},
        check=True,
        capture_output=True,
        timeout=STARTING,
    )
    add_rows(source, 100)


def environment_of(airflow: Airflow) -> dict[str, str]:
    """Return the environment in which this Airflow's other processes run."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    return {
        **kept,
        **airflow_environment(airflow.home),
        **airflow.environment,
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{TRIGGERER}:admin,{OTHER}:admin",
        "PYTHONPATH": str(REPOSITORY / "plugins"),
    }


@contextmanager
def api_server(airflow: Airflow) -> Iterator[str]:
    """Run Airflow's API server over the same metadata; give its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = airflow.home / "api-server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "airflow", "api-server"),
                *shlex.split(f"--host 127.0.0.1 --port {port} --workers 1"),
            ],
            env=environment_of(airflow),
            cwd=airflow.home,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + STARTING
        while True:
            assert process.poll() is None, log.read_text()[-4000:]
            assert time.monotonic() < deadline, log.read_text()[-4000:]
            try:
                AirflowApi(url, user="", password="")._call("GET", "/api/v2/monitor/health")
            except BackupError:
                time.sleep(0.2)
            else:
                break
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


def test_who_triggered_a_restore_cannot_approve_it_and_another_one_can_reject_it(
    stand: Stand,
) -> None:
    stand.calls()
    with stand.run() as running:
        first = stand.asked(running)
        plan = first["subject"].split("Plan ")[1][:16]
        assert f"asked for by {TRIGGERER}" in first["subject"]
        assert "which is kept beside under another name" in first["body"]
        assert "is intact in primary" in first["body"]
        assert plan in first["body"]
        stand.answer(first, "Approve", by=TRIGGERER)
        again = stand.asked(running)
        assert again["subject"] == first["subject"]
        stand.answer(again, "Reject", by=OTHER)
        ended = running.result()

    assert ended.state == "failed", str(ended.tasks) + str(ended.xcoms.keys())
    assert f"{TRIGGERER} has triggered this restore" in ended.output
    assert f"Nothing was restored: rejected by {OTHER}" in ended.output
    assert ended.tasks["approve"] == "failed"
    assert "success" not in {ended.tasks.get(f"source.fetch{index}") for index in ("", "[0]")}
    assert f"postgres was not restored: rejected by {OTHER}" in ended.output
    assert count_rows(stand.source, DATABASE) == 300
    assert stand.calls() == [], "no service was touched"


def test_what_has_changed_since_it_was_shown_is_not_restored_though_it_is_approved(
    stand: Stand,
) -> None:
    text = (stand.folder / "backup.yaml").read_text()
    with stand.run() as running:
        question = stand.asked(running)
        (stand.folder / "backup.yaml").write_text(text.replace("command: api", "command: other"))
        try:
            stand.answer(question, "Approve", by=OTHER)
            ended = running.result()
        finally:
            (stand.folder / "backup.yaml").write_text(text)

    assert ended.state == "failed"
    assert f"approved by {OTHER} as plan" in ended.output
    assert "backup.yaml has changed" in ended.output
    assert count_rows(stand.source, DATABASE) == 300


def test_nobodys_answer_within_the_time_is_no(stand: Stand) -> None:
    stand.calls()
    with stand.run() as running:
        stand.asked(running)
        stand.let_the_time_pass()
        ended = running.result()

    assert ended.state == "failed", str(ended.tasks)
    assert ended.tasks["approve"] == "failed"
    assert "Nothing was restored: nobody answered within 1 day, 0:00:00" in ended.output
    assert "postgres was not restored: nobody answered" in ended.output
    assert count_rows(stand.source, DATABASE) == 300
    assert stand.calls() == [], "no service was touched"


def test_what_another_person_approves_is_restored_while_the_service_is_stopped(
    stand: Stand,
) -> None:
    stand.calls()
    with stand.run() as running:
        stand.answer(stand.asked(running), "Approve", by=OTHER)
        ended = running.result()

    assert ended.state == "success", ended.output[-8000:]
    assert ended.xcoms["approve/return_value"]["approved_by"] == OTHER
    assert ended.xcoms["services/return_value"]["before"] == {"api": "running"}
    assert count_rows(stand.source, DATABASE) == 200
    assert stand.calls() == ["stop", "start"]
    assert (stand.folder / "running").exists()
    with session(stand.source) as opened:
        kept = opened.execute("SELECT datname FROM pg_database WHERE datname LIKE '%_before_%'")
        assert len(kept.fetchall()) == 1
