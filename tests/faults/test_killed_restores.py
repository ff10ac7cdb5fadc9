"""The command's restore killed in fetch, load and publish: repeated, it is whole or refused."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from support.wiring import (
    connection,
    count_rows,
    databases,
    drop_databases,
    local_places,
    scratch_database,
)

if TYPE_CHECKING:
    from neuroca_backup.model.endpoint import Endpoint

PLUGINS = Path(__file__).resolve().parents[2] / "plugins"
ROWS = 200
# The line after which the process is killed, in the step that comes then.
MOMENTS = {"fetch": "preflight  done", "load": "fetch      done", "publish": "compare    done"}


@dataclass
class Stand:
    """A backup.yaml with one source, its connections, and what counts what a server holds."""

    folder: Path
    engine: str
    source: Endpoint
    twin: Endpoint
    options: Mapping[str, Any]
    count: Callable[[Endpoint], int]
    services: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        places = local_places(self.folder)
        backup = {
            "schedule": {"database": "0 2 * * *"},
            "storage": places.storage,
            "retention": {},
            "encryption": places.encryption,
            "pipeline": {"spool": str(self.folder / "spool")},
            "services": self.services,
            "sources": {
                "data": {
                    "component": "database",
                    "engine": self.engine,
                    "connection": "source",
                    "options": dict(self.options),
                }
            },
        }
        (self.folder / "backup.yaml").write_text(yaml.safe_dump({"backup": backup}))
        kind = {"postgresql": "postgres", "redis_rdb": "redis"}[self.engine]
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
        self.environment = {
            **kept,
            "PYTHONPATH": str(PLUGINS),
            "NEUROCA_BACKUP_CONFIG": str(self.folder / "backup.yaml"),
            "AIRFLOW_CONN_SOURCE": connection(self.source, kind),
            "AIRFLOW_CONN_TWIN": connection(self.twin, kind),
        }

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "neuroca_backup", *words],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str) -> tuple[int, str]:
        with self.start(*words) as process:
            out, err = process.communicate(timeout=120)
        return process.returncode, out + err

    def killed(self, *words: str, after: str) -> None:
        with self.start(*words) as process:
            assert process.stdout is not None
            seen = next((line for line in process.stdout if line.startswith(after)), None)
            process.send_signal(signal.SIGKILL)
            assert seen is not None, process.stderr and process.stderr.read()
            process.stdout.close()
            with suppress(ValueError):
                process.wait(60)
        assert process.returncode == -signal.SIGKILL

    def spooled(self) -> list[str]:
        spool = self.folder / "spool"
        return sorted(path.name for path in spool.iterdir()) if spool.exists() else []


@pytest.fixture
def postgres_stand(postgres: Endpoint, postgres_twin: Endpoint, tmp_path: Path) -> Iterator[Stand]:
    name = f"killed_{secrets.token_hex(4)}"

    def count(server: Endpoint) -> int:
        return count_rows(server, name) if name in databases(server) else 0

    try:
        with scratch_database(postgres, name, also_on=[postgres_twin]) as source:
            yield Stand(tmp_path, "postgresql", source, postgres_twin, {"databases": [name]}, count)
    finally:
        drop_databases(postgres_twin, like=name)


@pytest.fixture
def redis_stand(redis_server: Endpoint, redis_twin: Endpoint, tmp_path: Path) -> Iterator[Stand]:
    import redis  # noqa: PLC0415 - only this fixture needs it

    def client(server: Endpoint) -> Any:
        return redis.Redis(host=server.host, port=server.port or 0, password=server.password)

    for server in (redis_server, redis_twin):
        client(server).flushall()
    for number in range(ROWS):
        client(redis_server).set(f"memory:{number}", number)
    yield Stand(
        tmp_path,
        "redis_rdb",
        redis_server,
        redis_twin,
        {},
        lambda server: int(client(server).dbsize()),
    )
    for server in (redis_server, redis_twin):
        client(server).flushall()


@pytest.mark.parametrize("step", MOMENTS)
@pytest.mark.parametrize("engine", ["postgres", "redis"])
def test_a_killed_restore_is_repeated_to_exactly_what_was_backed_up(
    request: pytest.FixtureRequest, engine: str, step: str
) -> None:
    stand: Stand = request.getfixturevalue(f"{engine}_stand")
    assert stand.run("backup", "data")[0] == 0
    words = ("restore", "data", "--target-connection", "twin")

    stand.killed(*words, after=MOMENTS[step])

    left = stand.count(stand.twin)
    assert left in {0, ROWS}, "published whole, or not at all"
    code, printed = stand.run(*words)
    if code != 0:
        # It was killed after its last act: what is there is whole, and is not replaced.
        assert (step, left) == ("publish", ROWS), printed
    assert stand.count(stand.twin) == ROWS, printed
    assert "which was killed, had left is removed" in printed
    assert stand.spooled() == []


SERVICE = """#!/bin/sh
cd "$(dirname "$0")"
case "$1" in status) [ -e running ] || exit 3 ;; stop) rm running ;; start) touch running ;; esac
"""


def test_services_that_a_killed_restore_had_stopped_run_again_after_its_repeat(
    postgres_stand: Stand,
) -> None:
    folder = postgres_stand.folder
    program = folder / "api"
    program.write_text(SERVICE)
    program.chmod(0o700)
    (folder / "running").touch()
    words = {word: [str(program), word] for word in ("status", "stop", "start")}
    postgres_stand.services = {"database": [{"command": "api", **words}]}
    postgres_stand.__post_init__()
    assert postgres_stand.run("backup", "data")[0] == 0
    in_place = ("restore", "data", "--in-place", "--confirm", "data")

    postgres_stand.killed(*in_place, after="stop       done")

    assert not (folder / "running").exists()
    assert postgres_stand.spooled()[-1] == "stopped-database"
    states = json.loads((folder / "spool" / "stopped-database" / "services.json").read_text())
    assert "running" in json.dumps(states)
    code, printed = postgres_stand.run("restore", "data", "--sandbox", "--no-wait")
    assert code == 0
    assert "api (was running)" in printed
    assert not (folder / "running").exists(), "nobody knows what the source holds now"

    code, printed = postgres_stand.run(*in_place)

    assert code == 0, printed
    assert (folder / "running").exists()
    assert postgres_stand.count(postgres_stand.source) == ROWS
    assert postgres_stand.spooled() == []
