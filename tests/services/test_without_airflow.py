"""The command where Airflow has never been, installed and used as the page for that day says."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from command_stand import stand
from neuroca_backup.model.endpoint import Endpoint
from support.airflow_database import MARKER
from support.worst_day import (
    REPOSITORY,
    Machine,
    installation,
    sql_of_the_page,
    yaml_of_the_page,
)

pytestmark = pytest.mark.timeout(600)  # it installs an environment from the package index


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """A machine with the repository, on which the page's first step was followed."""
    made = Machine(tmp_path_factory.mktemp("worst-day"))
    for name in ("pyproject.toml", "README.md", "requirements-command.txt"):
        shutil.copy(REPOSITORY / name, made.folder / name)
    shutil.copy(REPOSITORY / "requirements-postgres.txt", made.folder)
    for name in ("plugins", "include", "config"):
        shutil.copytree(
            REPOSITORY / name,
            made.folder / name,
            ignore=shutil.ignore_patterns("__pycache__", ".*"),
        )
    made.follow("1. Install the command")
    return made


@pytest.fixture(scope="module")
def environment(machine: Machine) -> Path:
    """The `bin` folder of an environment with what the command needs, and nothing more."""
    return machine.folder / "rescue" / "bin"


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


def test_the_page_is_followed_word_for_word_until_every_component_is_back(
    machine: Machine,
    tmp_path: Path,
    postgres: Endpoint,
    postgres_twin: Endpoint,
    redis_server: Endpoint,
    redis_twin: Endpoint,
    object_stores: dict[str, Endpoint],
) -> None:
    with installation(
        tmp_path,
        old=(postgres, redis_server),
        new=(postgres_twin, redis_twin),
        stores=object_stores,
    ) as here:
        here.back_up()
        before = here.files()
        here.lose_everything()
        machine.write("rescue.yaml", here.filled(yaml_of_the_page()))
        machine.write("connections.yaml", json.dumps(here.connections_of_the_stores()))
        for name in ("recovery.pem", "passphrase.txt", "fernet.key"):
            machine.write(name, here.offline[name])
        assert "postgres" in machine.follow("2. Say where the backups are")
        machine.follow("3. The configuration first", until="rm old-connections.jsonl")
        assert MARKER in (machine.folder / "old-connections.jsonl").read_text()
        found = machine.folder / "found" / str(here.tree).lstrip("/")
        by_key = machine.folder / "found-by-key" / str(here.tree).lstrip("/")
        assert (found / "app.env").read_text() == (by_key / "app.env").read_text()
        machine.write("connections.yaml", json.dumps(here.connections_of_the_new_servers()))
        machine.follow("3. The configuration first", after="rm old-connections.jsonl")

        machine.follow("4. Airflow's own database")
        assert here.rows_of_airflow("connection") == 1
        assert here.rows_of_airflow("log") == 1, "its history as well"

        assert here.password_in_airflow(machine.read("fernet.key")) == MARKER

        everything = machine.follow("5. Everything else")
        table = [
            line.split() for line in everything.splitlines() if line.split()[-1:] == ["restored"]
        ]
        assert {row[1].partition("__")[0] for row in table} == set(here.sources)
        assert here.rows() == 200
        assert here.keys() == here.expected_keys
        assert here.files() == before
        assert here.password_in_airflow(machine.read("fernet.key")) == MARKER

        here.delete_with(sql_of_the_page())
        machine.follow("The Fernet key is lost")
        assert machine.read("fernet.key") != here.offline["fernet.key"]
        assert here.password_in_airflow(machine.read("fernet.key")) == MARKER
        machine.follow("Other ways to restore")
        last = machine.follow("6. Start again")
        complete = [line for line in last.splitlines() if " complete " in line]
        assert len({line.split()[1] for line in complete}) == 5
        assert not (machine.folder / "connections.yaml").exists()
    assert machine.left_out() == []


def _run(*words: str | Path) -> str:
    ended = subprocess.run(words, env={}, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, f"{words} exited {ended.returncode}: {ended.stderr}"
    return ended.stdout
