"""Restore tests in bad hours: killed half way, and with an isolated server that holds data."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from neuroca_backup.sandbox import status
from support.redis_keys import client_of, flush
from support.wiring import connection, local_places

if TYPE_CHECKING:
    from neuroca_backup.model.endpoint import Endpoint

KIND = "redis_twin"
PLUGINS = Path(__file__).resolve().parents[2] / "plugins"


class Stand:
    """A Redis server with a backup, and another one that is isolated."""

    def __init__(self, folder: Path, own: Endpoint, isolated: Endpoint) -> None:
        self.folder, self.own, self.isolated = folder, own, isolated
        self.started: list[subprocess.Popen[str]] = []
        places = local_places(folder)
        source = {"component": "database", "engine": "redis_rdb", "connection": "own"}
        backup = {
            "schedule": {"database": "0 2 * * *"},
            "storage": places.storage,
            "retention": {},
            "encryption": places.encryption,
            "pipeline": {"spool": str(folder / "spool")},
            "sources": {"redis": source},
            "restore_test": {"connections": {"redis": "isolated"}},
            "sanitise": {"redis": [{"keys": "person:*", "action": "hash"}]},
        }
        (folder / "backup.yaml").write_text(yaml.safe_dump({"backup": backup}))
        self.environ = {
            **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
            "PYTHONPATH": str(PLUGINS),
            "AIRFLOW_CONN_OWN": connection(own, "redis"),
            "AIRFLOW_CONN_ISOLATED": connection(isolated, "redis"),
        }

    def start(self, *words: str) -> subprocess.Popen[str]:
        made = subprocess.Popen(
            [
                *(sys.executable, "-m", "neuroca_backup"),
                *("--config-path", str(self.folder / "backup.yaml"), *words),
            ],
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.started.append(made)
        return made

    def run(self, *words: str, code: int = 0) -> str:
        started = self.start(*words)
        told, _ = started.communicate(timeout=120)
        assert started.returncode == code, told
        return told

    def spooled(self) -> list[Path]:
        spool = self.folder / "spool"
        return sorted(spool.iterdir()) if spool.is_dir() else []

    def sandbox(self) -> Path:
        """Return the sandbox of the test that runs, once its server is up."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for path in (self.folder / "spool").glob("sandbox-*"):
                found = status(path).get(KIND)
                if found is not None and found.running:
                    return path
            time.sleep(0.02)
        raise AssertionError("no server was started")


@pytest.fixture(scope="module")
def stand(
    tmp_path_factory: pytest.TempPathFactory, redis_server: Endpoint, redis_twin: Endpoint
) -> Iterator[Stand]:
    for server in (redis_server, redis_twin):
        flush(server)
    with client_of(redis_server) as client:
        client.mset({f"person:{n}": f"{n}.zdenka@personal.example.net" for n in range(100)})
    made = Stand(tmp_path_factory.mktemp("killed"), redis_server, redis_twin)
    made.run("backup", "redis")
    yield made
    for process in made.started:
        with process:
            process.terminate()
    for server in (redis_server, redis_twin):
        flush(server)


def lives(pid: int) -> bool:
    """Return whether a process runs; one that has ended and waits for its parent does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def report_of(stand: Stand, *words: str, code: int = 0) -> dict[str, Any]:
    told = stand.run("test-restore", "--json", *words, code=code)
    found: dict[str, Any] = json.loads(told[told.index("{\n") : told.rindex("}") + 1])
    return found


def test_what_a_killed_test_leaves_the_next_one_removes_server_included(stand: Stand) -> None:
    killed = stand.start("test-restore", "--keep", "1")
    root = stand.sandbox()
    pid = status(root)[KIND].pid
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=60)
    assert pid is not None
    assert lives(pid), "a killed process stops nothing"
    assert stand.spooled()

    told = stand.run("test-restore")

    assert "which was killed, had left is removed" in told
    assert "1 of 1 sources passed" in told
    assert not lives(pid)
    assert stand.spooled() == []


def test_a_test_that_is_asked_to_end_while_it_keeps_its_sandbox_takes_it_down(
    stand: Stand,
) -> None:
    kept = stand.start("test-restore", "--keep", "1")
    told = ""
    assert kept.stdout is not None
    for line in kept.stdout:
        told += line
        if "Until then the server's journal" in line:
            break
    root = stand.sandbox()
    pid = status(root)[KIND].pid
    assert "the password is in" in told
    assert json.loads((root / "servers.json").read_text())["servers"][KIND]
    kept.send_signal(signal.SIGTERM)
    kept.communicate(timeout=60)

    assert kept.returncode == 128 + signal.SIGTERM
    assert not lives(pid)
    assert stand.spooled() == []


def test_an_isolated_server_is_empty_again_after_the_test(stand: Stand) -> None:
    done = report_of(stand, "--sandbox", "connection")

    assert done["passed"]
    assert done["sources"][0]["sanitised"] == "yes"
    with client_of(stand.isolated) as client:
        assert client.dbsize() == 0
    assert stand.spooled() == []


def test_what_was_on_an_isolated_server_before_is_refused_and_left_alone(stand: Stand) -> None:
    with client_of(stand.isolated) as client:
        client.set("somebody's", "work")

    done = report_of(stand, "--sandbox", "connection", code=1)

    assert done["sources"][0]["outcome"] == "failed in preflight"
    with client_of(stand.isolated) as client:
        assert client.get("somebody's") == b"work"
        client.flushdb()


def test_a_damaged_backup_fails_the_test_and_the_exit_code_says_so(stand: Stand) -> None:
    members = [
        path
        for store in ("primary", "secondary")
        for path in (stand.folder / store / "database" / "redis").rglob("members/*")
        if path.is_file()
    ]
    whole = {path: path.read_bytes() for path in members}
    for path, data in whole.items():
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    try:
        done = report_of(stand, "--source", "redis", code=4)
    finally:
        for path, data in whole.items():
            path.write_bytes(data)

    assert done["success_rate"] == 0
    assert done["sources"][0]["outcome"] == "failed in fetch"
    assert done["sources"][0]["removed"]
    assert stand.spooled() == []
