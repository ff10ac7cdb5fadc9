"""Every source, restored to both kinds of places, with each store in turn the only good one."""

from __future__ import annotations

import json
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.fernet import Fernet
from typer.testing import CliRunner

from neuroca_backup import sandbox
from neuroca_backup.cli.app import app
from neuroca_backup.cli.reporting import ExitCode
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.identity import BackupRef, Component
from neuroca_backup.sandbox import seed_milvus, seed_mongodb, seed_redis
from support import subjects
from support.airflow_database import drop_database as drop_airflow
from support.every_source import Declared, backup_yaml, declared
from support.milvus import client as milvus_client
from support.milvus import drop_database
from support.redis_keys import flush
from support.subjects import MANY, Subject
from support.wiring import connection, local_places, scratch_database

SOURCES = (
    *("postgres", "mongodb", "redis", "vector", "working", "episodic", "semantic"),
    *("configuration", "airflow", "models__embed", "logs"),
)
STORES = ("primary", "secondary")
_BOTH = [(source, store) for source in SOURCES for store in STORES]
# Milvus takes seconds to load a collection, and both are its: each restore that one of them leaves
# out the other has.
IN_PLACE = [one for one in _BOTH if one not in {("vector", "primary"), ("semantic", "secondary")}]
ELSEWHERE = [one for one in _BOTH if one not in {("vector", "secondary"), ("semantic", "primary")}]
KINDS = {"mongodb": "mongo", "airflow": "postgres"}  # of connections that are called otherwise
# A scale of each seed at which there are two hundred of what matters.
MONGODB_SCALE, REDIS_SCALE, MILVUS_SCALE = 0.04, 0.0803, 0.1


@dataclass(frozen=True)
class Stand:
    """Every source with one verified backup, and what was in it then."""

    folder: Path
    subjects: Mapping[str, Subject]
    backups: dict[str, BackupRef]
    states: dict[str, Any]

    def run(self, *words: str, code: ExitCode = ExitCode.DONE) -> str:
        config = str(self.folder / "backup.yaml")
        ended = CliRunner().invoke(app, ["--config-path", config, *words])
        assert ended.exit_code == code, f"{words}: {ended.output}"
        return ended.output

    def back_up(self) -> None:
        self.run("backup", "all")
        for one in json.loads(self.run("list", "--json"))["backups"]:
            assert one["verified"], one
            ref = BackupRef(backup_id=one["backup_id"], component=Component(one["component"]))
            self.backups[ref.source] = ref
            self.states[ref.source] = self.subjects[ref.source].state(self.subjects[ref.source].own)

    def elsewhere(self, source: str) -> tuple[str, str]:
        """Return the words for the other place of `source`."""
        if isinstance(self.subjects[source].own, Path):
            return "--target-directory", str(self.folder / "elsewhere" / source)
        return "--target-connection", f"to_{source}"

    def restore(self, source: str, *target: str, only_in: str) -> str:
        """Restore the one backup while no other store than `only_in` has it whole."""
        with self._only_in(only_in, source):
            chosen = ("--backup-id", self.backups[source].backup_id)
            return self.run("restore", source, *target, *chosen)

    @contextmanager
    def _only_in(self, store: str, source: str) -> Iterator[None]:
        """Take the backup away from the secondary, or change a bit of all that the primary has."""
        (lost,) = set(STORES) - {store}
        home = self.folder / lost / self.backups[source].prefix
        aside = self.folder / "aside"
        home.rename(aside)
        try:
            if lost == "primary":
                shutil.copytree(aside, home)
                for member in home.glob("*/members/**/*"):
                    if member.is_file():
                        _flip(member)
            yield
        finally:
            shutil.rmtree(home, ignore_errors=True)
            aside.rename(home)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.fixture(scope="module")
def milvus_twin(sandbox_root: Path) -> Iterator[Endpoint]:
    root = sandbox_root.parent / "milvus-twin"
    try:
        yield sandbox.start(root, ["milvus"])["milvus"]
    finally:
        sandbox.stop(root)


@pytest.fixture(scope="module")
def stand(
    tmp_path_factory: pytest.TempPathFactory,
    postgres: Endpoint,
    postgres_twin: Endpoint,
    mongodb: Endpoint,
    mongodb_twin: Endpoint,
    redis_server: Endpoint,
    redis_twin: Endpoint,
    milvus: Endpoint,
    milvus_twin: Endpoint,
) -> Iterator[Stand]:
    folder = tmp_path_factory.mktemp("matrix")
    own_milvus = replace(milvus, database="matrix")
    key = folder / "fernet.key"
    key.touch(mode=0o600)
    key.write_text(Fernet.generate_key().decode())
    with (
        scratch_database(
            postgres, f"matrix_{secrets.token_hex(4)}", rows=MANY, also_on=[postgres_twin]
        ) as database,
        _own_database(own_milvus),
        pytest.MonkeyPatch.context() as patched,
    ):
        flush(redis_server)
        seed_mongodb.seed(mongodb, scale=MONGODB_SCALE)
        seed_redis.seed(redis_server, scale=REDIS_SCALE)
        seed_milvus.seed(own_milvus, scale=MILVUS_SCALE)
        found = {
            "postgres": subjects.postgres(database, postgres_twin),
            "mongodb": subjects.mongodb(mongodb, mongodb_twin),
            "redis": subjects.redis(redis_server, redis_twin),
            "vector": subjects.vectors(own_milvus, milvus_twin),
            "working": subjects.redis(redis_server, redis_twin, tier=b"memory:stm:"),
            "episodic": subjects.mongodb(mongodb, mongodb_twin),
            "semantic": subjects.vectors(own_milvus, milvus_twin),
            "airflow": subjects.airflow(postgres, postgres_twin, key=key.read_text()),
        }
        declarations = declared(folder / "files", database=database.database) | {
            "airflow": Declared(
                *("configuration", "airflow_metadata", "airflow"), {"fernet_key_file": str(key)}
            )
        }
        for name, subject in found.items():
            via = str(declarations[name].connection)
            kind = KINDS.get(via, via)
            patched.setenv(f"AIRFLOW_CONN_{via.upper()}", connection(subject.own, kind))
            patched.setenv(f"AIRFLOW_CONN_TO_{name.upper()}", connection(subject.other, kind))
        for name in ("configuration", "models__embed", "logs"):
            found[name] = _files(folder, name)
        made = Stand(folder, found, {}, {})
        document = backup_yaml(folder, local_places(folder), declarations)
        (folder / "backup.yaml").write_text(yaml.safe_dump(document))
        made.back_up()
        yield made
        for subject in found.values():
            subject.empty(subject.other)
        for place in (found["airflow"].own, found["airflow"].other):
            plain = replace(place, database="postgres", extra={"sslmode": "disable"})
            drop_airflow(plain, place.database)
    flush(redis_server)
    found["mongodb"].empty(mongodb)


@contextmanager
def _own_database(milvus: Endpoint) -> Iterator[None]:
    drop_database(milvus)
    with milvus_client(replace(milvus, database="")) as client:
        client.create_database(milvus.database)
    try:
        yield
    finally:
        drop_database(milvus)


def _files(folder: Path, name: str) -> Subject:
    """Return the files of a source, which keep their whole path elsewhere; a model its name."""
    own = folder / "files" / name.replace("__", "/")
    below = own.name if name.startswith("models") else str(own).lstrip("/")
    (folder / "elsewhere").mkdir(exist_ok=True)
    return subjects.files(own, folder / "elsewhere" / name, below=below)


@pytest.mark.parametrize(("source", "store"), IN_PLACE)
def test_in_place_a_restore_brings_back_exactly_what_was_backed_up(
    stand: Stand, source: str, store: str
) -> None:
    subject, wanted = stand.subjects[source], stand.states[source]
    subject.change(subject.own)
    assert subject.state(subject.own) != wanted

    told = stand.restore(source, "--in-place", "--confirm", source, only_in=store)

    assert subject.state(subject.own) == wanted
    assert stores_read(told) == {store}


@pytest.mark.parametrize(("source", "store"), ELSEWHERE)
def test_elsewhere_a_restore_makes_exactly_what_was_backed_up(
    stand: Stand, source: str, store: str
) -> None:
    subject, wanted = stand.subjects[source], stand.states[source]
    subject.empty(subject.other)
    subject.change(subject.own)
    changed = subject.state(subject.own)
    assert changed != wanted

    told = stand.restore(source, *stand.elsewhere(source), only_in=store)

    assert subject.state(subject.other) == wanted
    assert stores_read(told) == {store}
    assert subject.state(subject.own) == changed, "the source was touched"
    # Now something is there, which nobody has said may be replaced.
    again = stand.run(
        "restore", source, *stand.elsewhere(source), "--dry-run", code=ExitCode.FAILED
    )
    assert "preflight  failed" in again
    assert subject.state(subject.other) == wanted


def stores_read(told: str) -> set[str]:
    """Return the stores whose bytes the report counts."""
    return set(re.findall(r"^ +[\d.,]+ \w+ from (\w+)$", told, re.MULTILINE))


def test_every_source_of_the_installation_is_in_the_matrix(stand: Stand) -> None:
    assert stand.backups.keys() == set(SOURCES)
