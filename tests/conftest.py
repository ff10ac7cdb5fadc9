"""Real servers for the tests, started when a test first asks for one and kept for the run.

Nothing heavy is imported here: a run of pure unit tests pays for no server and no client.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from neuroca_backup import sandbox
from neuroca_backup.model.endpoint import Endpoint

Start = Callable[[str], Endpoint]

# How long an example takes says more about what else the machine does than about the test.
settings.register_profile(
    "suite", deadline=None, suppress_health_check=[HealthCheck.too_slow], parent=settings.default
)
settings.load_profile("suite")


@pytest.fixture(scope="session")
def sandbox_root() -> Iterator[Path]:
    """The root of this run's servers; everything below it is stopped when the run ends."""
    folder = Path(tempfile.mkdtemp(prefix="neuroca-tests-"))
    folder.chmod(0o711)  # as root, PostgreSQL's account has to pass through
    root = folder / "sandbox"
    try:
        yield root
    finally:
        sandbox.stop(root)
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def start_server(sandbox_root: Path) -> Start:
    """Start a server by its kind, or give the one that runs."""

    def start(kind: str) -> Endpoint:
        return sandbox.start(sandbox_root, [kind])[kind]

    return start


@pytest.fixture(scope="session")
def postgres(start_server: Start) -> Endpoint:
    """The PostgreSQL server that is backed up."""
    return start_server("postgres")


@pytest.fixture(scope="session")
def postgres_alone(sandbox_root: Path) -> Iterator[Endpoint]:
    """A PostgreSQL server for whole-cluster backups: no test leaves much on it."""
    root = sandbox_root.parent / "alone"
    try:
        yield sandbox.start(root, ["postgres"])["postgres"]
    finally:
        sandbox.stop(root)


@pytest.fixture(scope="session")
def postgres_twin(start_server: Start) -> Endpoint:
    """A second PostgreSQL server, to restore to; its superuser has another name."""
    return start_server("postgres_twin")


@pytest.fixture(scope="session")
def mongodb(start_server: Start) -> Endpoint:
    """A MongoDB replica set of one."""
    return start_server("mongodb")


@pytest.fixture(scope="session")
def mongodb_twin(start_server: Start) -> Endpoint:
    """A second MongoDB replica set of one, to restore to; its set has another name."""
    return start_server("mongodb_twin")


@pytest.fixture(scope="session")
def redis_server(start_server: Start) -> Endpoint:
    """A Redis server."""
    return start_server("redis")


@pytest.fixture(scope="session")
def redis_twin(start_server: Start) -> Endpoint:
    """A second Redis server, to restore to."""
    return start_server("redis_twin")


@pytest.fixture(scope="session")
def milvus(start_server: Start) -> Endpoint:
    """A Milvus server."""
    return start_server("milvus")


@pytest.fixture(scope="session")
def object_stores(sandbox_root: Path) -> dict[str, Endpoint]:
    """S3 and KMS by region: `us-west-2` and `eu-central-1`."""
    started = sandbox.start(sandbox_root, ["s3_us_west_2", "s3_eu_central_1"])
    return {str(endpoint.extra["region_name"]): endpoint for endpoint in started.values()}


@pytest.fixture
def fresh_database(postgres: Endpoint) -> Iterator[Endpoint]:
    """An empty database of its own on the source server, dropped afterwards."""
    import psycopg  # noqa: PLC0415 - see the module's docstring
    from psycopg import sql  # noqa: PLC0415 - as above

    name = f"test_{secrets.token_hex(6)}"

    def run(statement: str) -> None:
        with psycopg.connect(
            host=postgres.host,
            port=postgres.port,
            user=postgres.user,
            password=postgres.password,
            dbname=postgres.database,
            autocommit=True,
        ) as connection:
            connection.execute(sql.SQL(statement).format(sql.Identifier(name)))

    run("CREATE DATABASE {}")
    try:
        yield replace(postgres, database=name)
    finally:
        run("DROP DATABASE {} WITH (FORCE)")
