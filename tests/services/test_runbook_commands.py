"""Every line of docs/reference/runbook-commands.md, run in its order against real stores."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from neuroca_backup.cli.app import app
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.sandbox import seed_files, seed_milvus, seed_mongodb, seed_redis
from support.engines.mongodb import connected
from support.every_source import backup_yaml, declared
from support.milvus import client as milvus_client
from support.redis_keys import client_of, flush
from support.wiring import add_rows, connection, count_rows, local_places, scratch_database

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reference" / "runbook-commands.md"
SCALE = 0.02
EPISODES = seed_mongodb.counts(SCALE)[f"{seed_mongodb.DATABASE}.episodes"]
VECTORS = seed_milvus.counts(SCALE)[seed_milvus.COLLECTION]


def cells(column: int) -> list[str]:
    """Return what stands in a column of the page's tables, from the top."""
    rows = [line.strip("|").split(" | ") for line in PAGE.read_text().splitlines() if "|" in line]
    return [row[column].strip() for row in rows if not row[0].startswith("---")]


LINES = re.findall(r"`neuroca-backup ([^`]+)`", "\n".join(cells(1)))


@dataclass
class Stand:
    """An installation with a source for every line, and what lies in its stores now."""

    folder: Path
    postgres: Endpoint
    mongodb: Endpoint
    redis: Endpoint
    milvus: Endpoint

    def run(self, line: str) -> str:
        names = {"DIR": self.folder / "dir", "NEW": self.folder / "new"}
        words = [
            re.sub(r"^(DIR|NEW)\b", lambda found: str(names[found[0]]), word)
            for word in line.split()
        ]
        if "BACKUP_ID" in words:
            words[words.index("BACKUP_ID")] = self.newest_of("postgres")
        if "BACKUP_PATH" in words:
            newest = self.newest_of("postgres")
            path = f"{self.folder}/primary/database/postgres/{newest}"
            words[words.index("BACKUP_PATH")] = path
        ended = CliRunner().invoke(app, ["--config-path", str(self.config), *words])
        assert ended.exit_code == 0, f"{line}: {ended.output}"
        return ended.output

    @property
    def config(self) -> Path:
        return self.folder / "backup.yaml"

    def newest_of(self, source: str) -> str:
        found = json.loads(self.run(f"list --source {source} --json"))
        return str(found["backups"][0]["backup_id"])

    def rows(self) -> int:
        return count_rows(self.postgres, self.postgres.database)

    def episodes(self) -> int:
        with connected(self.mongodb) as client:
            return int(client[seed_mongodb.DATABASE]["episodes"].count_documents({}))

    def keys(self) -> int:
        with client_of(self.redis) as client:
            return int(client.dbsize())  # type: ignore[arg-type]

    def vectors(self) -> int:
        with milvus_client(self.milvus) as client:
            found = client.query(
                seed_milvus.COLLECTION, output_fields=["count(*)"], consistency_level="Strong"
            )
            return int(found[0]["count(*)"])

    def changed(self) -> None:
        """Write what no backup has."""
        add_rows(self.postgres, 100)
        with connected(self.mongodb) as client:
            client[seed_mongodb.DATABASE]["episodes"].delete_many({"user": 1})
        with client_of(self.redis) as client:
            client.set("memory:stm:later", "x")
        (self.folder / "files/configuration/parameters/memory.yaml").write_text("changed: true\n")


@pytest.fixture(scope="module")
def stand(
    tmp_path_factory: pytest.TempPathFactory,
    postgres: Endpoint,
    mongodb: Endpoint,
    redis_server: Endpoint,
    milvus: Endpoint,
) -> Iterator[Stand]:
    folder = tmp_path_factory.mktemp("runbook")
    for name in ("dir", "new"):
        (folder / name).mkdir(mode=0o700)
    flush(redis_server)
    for seed, endpoint in (
        (seed_mongodb, mongodb),
        (seed_redis, redis_server),
        (seed_milvus, milvus),
    ):
        seed.seed(endpoint, scale=SCALE)
    seed_files.seed(folder / "files", scale=SCALE)
    places = local_places(folder)
    environ = {
        "postgres": connection(postgres, "postgres"),
        "mongodb": connection(mongodb, "mongo"),
        "redis": connection(redis_server, "redis"),
        "milvus": connection(milvus, "milvus"),
    }
    with (
        scratch_database(postgres, f"runbook_{secrets.token_hex(4)}") as database,
        pytest.MonkeyPatch.context() as patched,
    ):
        for name, value in environ.items():
            patched.setenv(f"AIRFLOW_CONN_{name.upper()}", value)
        made = Stand(folder, database, mongodb, redis_server, milvus)
        sources = declared(folder / "files", database=database.database)
        made.config.write_text(yaml.safe_dump(backup_yaml(folder, places, sources)))
        yield made
    flush(redis_server)
    with connected(mongodb) as client:
        client.drop_database(seed_mongodb.DATABASE)
    with milvus_client(milvus) as client:
        client.drop_collection(seed_milvus.COLLECTION)


def drop_the_vectors(stand: Stand) -> None:
    with milvus_client(stand.milvus) as client:
        client.drop_collection(seed_milvus.COLLECTION)


def is_restored(found: Callable[[Stand], int], expected: int) -> Callable[[Stand], None]:
    def check(stand: Stand) -> None:
        assert found(stand) == expected

    return check


def configuration_is_back(stand: Stand) -> None:
    text = (stand.folder / "files/configuration/parameters/memory.yaml").read_text()
    assert text.startswith("working:")


def nothing_is_changed(stand: Stand) -> None:
    assert stand.rows() == 300


_IMPORT = "config-import --input DIR/config.tar"
BEFORE: dict[str, Callable[[Stand], None]] = {
    "restore postgres --in-place --confirm postgres --dry-run": Stand.changed,
    "vector-import --source vector --input DIR/vectors.jsonl.gz": drop_the_vectors,
}
AFTER: dict[str, Callable[[Stand], None]] = {
    "restore postgres --in-place --confirm postgres --dry-run": nothing_is_changed,
    "restore postgres --in-place --confirm postgres": is_restored(Stand.rows, 200),
    "restore mongodb --in-place --confirm mongodb": is_restored(Stand.episodes, EPISODES),
    "restore redis --in-place --confirm redis": is_restored(
        Stand.keys, seed_redis.counts(SCALE)["0"]
    ),
    "restore vector --in-place --confirm vector": is_restored(Stand.vectors, VECTORS),
    "vector-import --source vector --input DIR/vectors.jsonl.gz": is_restored(
        Stand.vectors, VECTORS
    ),
    f"{_IMPORT} --in-place --confirm configuration": configuration_is_back,
}


@pytest.mark.parametrize("line", LINES)
def test_the_line_does_what_the_runbook_wants(stand: Stand, line: str) -> None:
    BEFORE.get(line, lambda _: None)(stand)
    stand.run(line)
    AFTER.get(line, lambda _: None)(stand)


def test_the_checks_belong_to_lines_of_the_page() -> None:
    assert {*BEFORE, *AFTER} <= set(LINES)


def test_models_and_logs_came_back_byte_for_byte(stand: Stand) -> None:
    for name in ("models", "logs"):
        wanted = _contents(stand.folder / "files" / name)
        assert wanted
        assert _contents(stand.folder / "new" / name) == wanted


def _contents(root: Path) -> list[bytes]:
    return sorted(path.read_bytes() for path in root.rglob("*") if path.is_file())
