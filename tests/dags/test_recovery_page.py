"""The runbook page of a disaster, and the DAG that it is about: each has what the other says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from dags.stand import REPOSITORY
from neuroca_backup.services.recovery.request import RecoveryRequest
from neuroca_backup.settings import load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from airflow.sdk import DAG

PAGE = REPOSITORY / "docs" / "runbooks" / "disaster-recovery.md"
GROUPS = ["assess", "activate", "infrastructure", "restore", "verify", "return"]
CLOCKS = {"rto_database", "rto_memory_tiers", "rto_full_system"}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```\n", PAGE.read_text(), flags=re.DOTALL)


@pytest.fixture
def dag(configure: Callable[..., Path], parsed: Callable[[], dict[str, DAG]]) -> DAG:
    configure(sources="")
    return parsed()["disaster_recovery"]


def above(dag: DAG, task_id: str) -> set[str]:
    return {task.task_id for task in dag.get_task(task_id).get_flat_relatives(upstream=True)}


def test_six_groups_follow_one_another_and_the_clocks_stand_beside_them(dag: DAG) -> None:
    assert list(dag.task_group.children) == [
        "assess",
        *(task for task in dag.task_group.children if task.startswith("rto_")),
        *GROUPS[1:],
    ]
    assert {task for task in dag.task_ids if "." not in task} == CLOCKS
    first = {"assess.survey", "assess.plan"}
    for clock in CLOCKS:
        assert above(dag, clock) == first, "it starts with the recovery"
        assert not dag.get_task(clock).downstream_task_ids, "it stops nothing"
    for before, group in pairwise(GROUPS):
        roots = [
            task
            for task in dag.tasks
            if task.task_id.startswith(f"{group}.")
            and not any(one.startswith(f"{group}.") for one in task.upstream_task_ids)
        ]
        assert roots
        for root in roots:
            assert any(one.startswith(f"{before}.") for one in root.upstream_task_ids)


def test_nothing_that_writes_comes_before_the_last_approval(dag: DAG) -> None:
    for task in dag.tasks:
        if task.task_id.split(".")[0] in GROUPS[2:]:
            assert "activate.approve_again" in above(dag, task.task_id)
    for approval in ("activate.approve", "activate.approve_again", "return.confirm"):
        question: Any = dag.get_task(approval)
        assert (question.retries, question.defaults) == (0, None), "nobody's answer is no"


def test_priorities_follow_one_another_whatever_became_of_the_one_before(dag: DAG) -> None:
    order = ["configuration", "database", "memory_tiers", "model_weights", "logs"]
    for before, after in pairwise(order):
        choose = dag.get_task(f"restore.{after}.choose")
        assert choose.trigger_rule == "all_done"
        assert f"restore.{before}.source.record" in above(dag, choose.task_id)
        assert dag.get_task(f"restore.{after}.source.record").trigger_rule == "all_done"
    report = dag.get_task("return.report")
    assert report.trigger_rule == "all_done"
    assert not report.downstream_task_ids, "it decides how the run ends"


def test_the_form_is_a_drill_as_it_comes_and_the_drill_has_a_schedule(dag: DAG) -> None:
    request = RecoveryRequest.parse(dag.params.dump(), load(REPOSITORY / "config" / "backup.yaml"))

    timetable: Any = dag.timetable
    assert request == RecoveryRequest()
    assert (timetable.expression, str(timetable.timezone)) == ("0 9 2 1,4,7,10 *", "UTC")
    for name in dag.params:
        assert dag.params.get_param(name).description


def test_the_form_on_the_page_is_one_that_is_accepted() -> None:
    (text,) = blocks("json")
    conf = json.loads(text)["conf"]

    request = RecoveryRequest.parse(conf, load(REPOSITORY / "config" / "backup.yaml"))

    assert request.connections["working"] == "new_redis"


def test_every_task_on_the_page_is_one_of_the_dag_s(dag: DAG) -> None:
    text = PAGE.read_text()
    table = text[text.index("## A task is red") : text.index("## 4. Afterwards")]
    named = [
        word.replace(", `.versions", "")
        for row in re.findall(r"^\| (`.*?) \|", table, flags=re.MULTILINE)
        for word in re.findall(r"`([a-z_*][a-z_.*]+)`", row)
    ]
    assert len(named) > 12
    for pattern in named:
        assert any(fnmatchcase(task, pattern) for task in dag.task_ids), pattern
    # What may be red by itself is explained; the steps of a restore have their own page.
    told = re.findall(r"`([a-z_*.]+)`", table)
    for task in dag.task_ids:
        step = task.split(".")[0]
        if step in {"assess", "activate", "return"} and task not in {
            "activate.approve_again",
            "return.redirect",
            "return.monitor",
            "return.clean_up",
        }:
            assert any(fnmatchcase(task, pattern) for pattern in told), task


class Api(BaseHTTPRequestHandler):
    """As much of Airflow's API as the page uses; it remembers what it was asked."""

    asked: list[tuple[str, str, Any]]

    def answer(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(size)) if size else None
        self.asked.append((self.command, self.path, body))
        if self.path != "/auth/token" and self.headers["Authorization"] != "Bearer t":
            self.send_error(401)
            return
        instance = {"dag_run_id": "run", "task_id": "activate.approve"}
        found = {
            "access_token": "t",
            "hitl_details": [{"task_instance": instance, "subject": "Recover?"}],
        }
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(found).encode())

    do_GET = do_POST = do_PATCH = answer  # noqa: N815 - the names that the library calls

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def api() -> Iterator[HTTPServer]:
    Api.asked = []
    server = HTTPServer(("127.0.0.1", 0), Api)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_commands_on_the_page_trigger_ask_and_approve(api: HTTPServer, tmp_path: Path) -> None:
    (text,) = blocks("json")
    (tmp_path / "recovery.json").write_text(text)

    done = subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", "\n".join(blocks("sh"))],
        cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"],
            "AIRFLOW": f"http://127.0.0.1:{api.server_port}",
            "AIRFLOW_USER": "alice",
            "AIRFLOW_PASSWORD": "secret",
            "RUN_ID": "run",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "run activate.approve Recover?" in done.stdout
    base = "/api/v2/dags/disaster_recovery/dagRuns"
    assert Api.asked == [
        ("POST", "/auth/token", {"username": "alice", "password": "secret"}),
        ("POST", base, json.loads(text)),
        ("GET", f"{base}/~/hitlDetails?response_received=false", None),
        (
            "PATCH",
            f"{base}/run/taskInstances/activate.approve/-1/hitlDetails",
            {"chosen_options": ["Approve"], "params_input": {}},
        ),
    ]
