from __future__ import annotations

import importlib.resources
import math
import subprocess
import sys

import pytest

from neuroca_backup.errors import ConfigurationError
from neuroca_backup.sandbox import seed_milvus, seed_mongodb, seed_redis
from neuroca_backup.sandbox.seed import expected


def test_the_demo_has_the_numbers_it_promises() -> None:
    demo = expected()
    assert demo["postgres"]["neuroca.memory.memory_items"] == 200_000
    assert demo["mongodb"]["neuroca_episodic.episodes"] == 5_000
    assert sum(demo["redis"].values()) == pytest.approx(10_000, rel=0.01)
    assert demo["milvus"] == {"neuroca_semantic": 2_000}


@pytest.mark.parametrize("scale", [1e-9, 0.001, 0.01])
def test_no_table_is_empty_however_small_the_scale(scale: float) -> None:
    assert all(count >= 1 for store in expected(scale).values() for count in store.values())


@pytest.mark.parametrize("scale", [0, -1, math.nan, math.inf])
def test_a_scale_that_gives_no_data_is_refused(scale: float) -> None:
    with pytest.raises(ConfigurationError, match="above 0"):
        expected(scale)


def test_the_expected_number_of_redis_keys_is_that_of_the_commands() -> None:
    for scale in (0.0001, 0.003, 0.1):
        keys = {command[1] for command in seed_redis._commands(seed_redis._items(scale), "")}
        assert seed_redis.counts(scale)["0"] == len(keys)


def test_every_process_makes_the_same_documents_vectors_and_keys() -> None:
    script = (
        "import hashlib, bson; from neuroca_backup.sandbox import seed_mongodb, seed_redis, "
        "seed_milvus; print(hashlib.sha256(b''.join(bson.encode(seed_mongodb._episode(n)) "
        "for n in range(50)) + repr(list(seed_redis._commands(50, ''))).encode() "
        "+ repr(seed_milvus._rows(0, 3)).encode()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1
    assert seed_mongodb._episode(1) != seed_mongodb._episode(2)
    assert seed_milvus._rows(0, 1)[0]["embedding"] != seed_milvus._rows(1, 2)[0]["embedding"]


def test_importing_the_sandbox_loads_no_client_and_no_server() -> None:
    script = (
        "import sys, neuroca_backup.sandbox; print([m for m in ('psycopg', 'pymongo', 'redis', "
        "'pymilvus', 'milvus', 'boto3', 'moto', 'numpy', 'typer') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": ":".join(sys.path)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "[]"


def test_the_scripts_for_postgresql_are_where_the_package_looks() -> None:
    resources = importlib.resources.files("neuroca_backup.sandbox")
    for database in ("neuroca", "neuroca_memory"):
        assert "CREATE TABLE" in resources.joinpath(f"seed_{database}.sql").read_text()
