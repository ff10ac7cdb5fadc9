"""The parts of the demo that need no Airflow; `make demo` itself is the test of the rest."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from neuroca_backup import sandbox
from neuroca_backup.connections import FileConnections
from neuroca_backup.demo import configuration
from neuroca_backup.demo.airflow_api import AirflowApi
from neuroca_backup.demo.airflow_processes import COMPONENTS, AirflowProcesses
from neuroca_backup.demo.evidence import Evidence, SetEvidence, as_seeded, table
from neuroca_backup.demo.place import Place
from neuroca_backup.demo.screen import Screen
from neuroca_backup.demo.sources import SOURCES
from neuroca_backup.demo.story import Demo
from neuroca_backup.errors import (
    AlreadyExistsError,
    ComparisonError,
    ConfigurationError,
    NotFoundError,
    UnreachableError,
)
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.identity import Component
from neuroca_backup.model.manifest import Dump, Manifest
from neuroca_backup.sandbox import seed_files
from neuroca_backup.sandbox.process import Process, spawn
from neuroca_backup.sandbox.seed import expected
from neuroca_backup.sandbox.server import Entry
from neuroca_backup.sandbox.state import State
from neuroca_backup.services import targets
from neuroca_backup.settings import load, warnings

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).resolve().parents[2]
# Everything that a shell, a URL and JSON treat in a way of their own, but no line break.
PASSWORD = 'it\'s "a" $HOME/`x` \\ @:%?#&= ü'


def region(name: str, bucket: str) -> Endpoint:
    return Endpoint(
        kind="aws",
        host="127.0.0.1",
        port=21000,
        user="AKIAEXAMPLE",
        password=PASSWORD,
        extra={
            "endpoint_url": "http://127.0.0.1:21000",
            "region_name": name,
            "bucket": bucket,
            "kms_key_arn": f"arn:aws:kms:{name}:123456789012:key/{name}",
        },
    )


def server(kind: str, port: int) -> Endpoint:
    return Endpoint(kind=kind, host="127.0.0.1", port=port, user="nca", password=PASSWORD)


STORES = {
    "postgres": server("postgres", 21001),
    "mongodb": server("mongo", 21002),
    "redis": server("redis", 21003),
    "milvus": server("milvus", 21004),
    "s3_us_west_2": region("us-west-2", "neuroca-backups"),
    "s3_eu_central_1": region("eu-central-1", "neuroca-dr-backups"),
}
METADATA = server("postgres", 21005)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(root=tmp_path / ".demo", repository=REPOSITORY)
    place.create()
    return place


@pytest.fixture
def output() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def demo(place: Place, output: io.StringIO) -> Demo:
    return Demo(place, Screen(Console(file=output, width=200)))


@pytest.fixture
def strangers() -> Iterator[list[Process]]:
    """Processes to be ended however the test goes."""
    found: list[Process] = []
    yield found
    for process in found:
        process.stop(first=signal.SIGKILL, grace_seconds=5)


def recorded(place: Place, process: Process) -> None:
    entry = Entry(
        kind="scheduler",
        folder=place.airflow,
        stop_signal=signal.SIGTERM,
        grace_seconds=1,
        process=process,
    )
    State.read(place.airflow).put(entry)


def sleeping(place: Place, script: str) -> Process:
    return spawn(
        ["/bin/sh", "-c", script],
        folder=place.airflow,
        log=place.logs / "x.log",
        env={"PATH": os.environ["PATH"]},
        account=None,
        report=lambda process: recorded(place, process),
    )


def test_the_demos_backup_yaml_is_valid_keeps_both_regions_and_every_key_and_has_no_secret(
    place: Place,
) -> None:
    (place.recovery / "public.pem").touch()
    place.settings.write_text(configuration.backup_yaml(place, STORES))

    settings = load(place.settings)

    assert warnings(settings) == []
    stores = settings.storage.named()
    assert {n: getattr(s, "region", None) for n, s in stores.items()} == {
        "primary": "us-west-2",
        "secondary": "eu-central-1",
    }
    assert settings.encryption.kms_key_id == STORES["s3_us_west_2"].extra["kms_key_arn"]
    second = STORES["s3_eu_central_1"].extra["kms_key_arn"]
    assert settings.encryption.secondary_kms_key_id == second
    assert settings.encryption.recovery_public_key == place.recovery / "public.pem"
    assert settings.pipeline.spool == place.spool
    assert PASSWORD not in place.settings.read_text()


def test_every_connection_that_backup_yaml_names_is_one_that_the_command_can_read(
    place: Place,
) -> None:
    place.settings.write_text(configuration.backup_yaml(place, STORES))
    settings = load(place.settings)
    connections = FileConnections(environ=configuration.connections(STORES, METADATA))

    postgres = connections.endpoint(str(settings.sources["postgres"].connection))
    catalog = connections.endpoint(str(settings.catalog.connection))
    aws = connections.endpoint(str(settings.encryption.kms_connection))

    assert (postgres.label, postgres.password) == ("127.0.0.1:21001", PASSWORD)
    assert (catalog.label, catalog.database) == ("127.0.0.1:21005", "neuroca_backup")
    assert aws.password == PASSWORD
    assert dict(aws.extra) == {
        "endpoint_url": "http://127.0.0.1:21000",
        "region_name": "us-west-2",
    }
    ids = [settings.storage.named()[n].connection for n in ("primary", "secondary")]  # type: ignore[union-attr]  # both are S3
    clients = [connections.aws_client("s3", region=None, connection_id=i) for i in ids]
    assert [c.meta.region_name for c in clients] == ["us-west-2", "eu-central-1"]


def test_every_source_of_the_demo_is_configured_seeded_and_reached(place: Place) -> None:
    place.settings.write_text(configuration.backup_yaml(place, STORES))
    settings = load(place.settings)
    connections = FileConnections(environ=configuration.connections(STORES, METADATA))
    seeded = {**expected(0.001), **seed_files.counts()}

    assert list(settings.sources) == [source.name for source in SOURCES]
    for source in SOURCES:
        if source.seeded:
            assert sum(seeded[source.seeded].values()) > 0
        if source.seeded in STORES:
            endpoint = connections.endpoint(str(source.connection))
            assert endpoint.same_server(STORES[source.seeded])
        assert (source.connection is None) == targets.of_files(source.engine)


def test_the_files_of_the_demo_are_what_its_sources_list_and_the_logs_rotate(
    place: Place,
) -> None:
    seed_files.seed(place.files, scale=0.01)
    times = {p: p.stat().st_mtime_ns for p in place.files.rglob("*.safetensors")}
    seed_files.seed(place.files, scale=0.01)

    for source in SOURCES:
        if source.connection is not None or source.options is None:
            continue
        for paths in source.options(place.files).values():
            for path in paths:
                assert any(Path(path).rglob("*")), path
    assert len(times) == 6
    assert {p: p.stat().st_mtime_ns for p in times} == times, "an unchanged model is left alone"
    log = place.files / "logs" / "application" / "neuroca.log"
    assert log.with_name("neuroca.log.1").stat().st_size > 0
    assert (
        place.files / "configuration" / "environment" / "neuroca.env"
    ).stat().st_mode & 0o77 == 0
    for weights in times:
        raw = weights.read_bytes()
        length = int.from_bytes(raw[:8], "little")
        header = json.loads(raw[8 : 8 + length])
        ends = [one["data_offsets"][1] for name, one in header.items() if name != "__metadata__"]
        assert 8 + length + max(ends) == len(raw)


def dumped(facts: dict[str, Any]) -> Manifest:
    at = datetime(2026, 11, 23, 2, tzinfo=UTC)
    return Manifest(
        backup_id="20261123T020000Z-1f0c9a3e-postgres",
        set_id="20261123T020000Z-1f0c9a3e",
        component=Component.DATABASE,
        source="postgres",
        engine="postgresql",
        attempt="a1b2c3d4",
        stages=(),
        dump=Dump(server_version="18", consistency={"time": at.isoformat()}, facts=facts),
        members=(),
        started_at=at,
        finished_at=at,
        product="test",
    )


def test_a_single_row_that_was_not_seeded_is_no_proof() -> None:
    seeded = {"neuroca.memory.users": 2}
    facts = {"databases": {"neuroca": {"tables": {"memory.users": {"rows": 2}}}}}
    assert as_seeded(SOURCES[0], [dumped(facts)], seeded) == 2

    facts["databases"]["neuroca"]["tables"]["memory.users"]["rows"] = 3

    with pytest.raises(ComparisonError, match="seeded were"):
        as_seeded(SOURCES[0], [dumped(facts)], seeded)
    assert as_seeded(SOURCES[0], [dumped(facts)], None) == 3


def test_the_table_has_a_row_a_source_and_fits_into_80_columns() -> None:
    rows = [
        Evidence(
            source=name,
            plain_size=2_055_208_960,
            stored_size=411_041_792,
            to_upload=123.4,
            levels={"primary": "INTACT", "secondary": "READABLE"},
            to_restore=to_restore,
            count=count,
            noun=noun,
        )
        for name, count, noun, to_restore in (
            ("postgres", 5_100_001, "rows", 123.4),
            ("mongodb", 55_001, "documents", 123.4),
            ("redis", 100_000, "keys", 123.4),
            ("configuration", 700, "files", None),
        )
    ]
    out = io.StringIO()

    Console(file=out, width=80).print(table(SetEvidence("20261123T020000Z-1f0c9a3e", 12.3, rows)))

    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    for row in rows:
        (line,) = [line for line in lines if line.startswith(row.source)]
        assert "123.4 s" in line
        assert "INTACT, READABLE" in line
        assert f"{row.count:,} {row.noun}" in line
    assert "12.3 s apart" in lines[0]


def test_a_shell_that_sources_the_environment_gets_exactly_what_airflow_gets(place: Place) -> None:
    environment = {
        **configuration.airflow_environment(place, METADATA, port=21006),
        **configuration.connections(STORES, METADATA),
    }
    place.environment.write_text(configuration.shell(environment))

    done = subprocess.run(
        [
            "/bin/sh",
            "-c",
            f". {place.environment}; {sys.executable} -c "
            "'import json, os; print(json.dumps(dict(os.environ)))'",
        ],
        env={},
        capture_output=True,
        text=True,
        check=True,
    )

    found = json.loads(done.stdout)
    assert {name: found.get(name) for name in environment} == environment
    assert configuration.parse_shell(place.environment.read_text()) == environment


def test_secrets_are_made_once_and_nothing_of_the_demo_is_open_to_others(place: Place) -> None:
    first = place.secrets()

    assert place.secrets() == first
    assert len(set(first.values())) == len(first)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (place.root, place.airflow)}
    assert modes == {".demo": 0o700, "airflow": 0o700}
    assert (place.root / "secrets.json").stat().st_mode & 0o777 == 0o600


def test_stopping_ends_what_a_killed_component_left_behind(
    place: Place, strangers: list[Process]
) -> None:
    # Its child is what a task is to a scheduler: of the same session, orphaned by SIGKILL.
    marker = place.airflow / "child"
    leader = sleeping(place, f"sleep 600 & echo $! >{marker}; wait")
    strangers.append(leader)
    while not marker.exists() or not marker.read_text().endswith("\n"):
        assert leader.alive()
    child = Process.find(int(marker.read_text()))
    assert child is not None
    strangers.append(child)
    os.kill(leader.pid, signal.SIGKILL)
    while leader.alive():
        pass

    AirflowProcesses(place).stop()

    assert not child.alive()
    assert AirflowProcesses(place).alive() == dict.fromkeys(COMPONENTS, False)


def test_stopping_leaves_a_stranger_alone_that_got_the_number_of_an_ended_component(
    place: Place,
) -> None:
    with subprocess.Popen(["/bin/sleep", "600"], start_new_session=True) as stranger:
        recorded(place, Process(pid=stranger.pid, started="another boot/1"))

        AirflowProcesses(place).stop()

        spared = stranger.poll() is None
        stranger.kill()
    assert spared


def test_down_removes_everything_half_dead_or_not_and_twice_is_no_error(
    place: Place, demo: Demo, output: io.StringIO, strangers: list[Process]
) -> None:
    redis = sandbox.start(place.servers, ["redis"])["redis"]
    restore = place.spool / "sandbox-restore-20261123T020000Z-00000000"
    left = sandbox.start(restore, ["redis"])["redis"]
    scheduler = sleeping(place, "exec sleep 600")
    strangers.append(scheduler)
    os.kill(int(sandbox.status(place.servers)["redis"].pid or 0), signal.SIGKILL)

    demo.down()
    demo.down()

    assert not place.root.exists()
    assert not scheduler.alive()
    for endpoint in (redis, left):
        with pytest.raises(ConnectionRefusedError):
            _connect(endpoint)
    assert "Nothing to stop" in output.getvalue()


def test_only_one_of_up_and_down_is_at_work_at_a_time(place: Place, demo: Demo) -> None:
    with place.exclusive(create=True), pytest.raises(AlreadyExistsError, match="at work"):
        demo.down()

    demo.down()
    assert not place.root.exists()


def test_an_impossible_scale_is_refused_before_anything_starts(tmp_path: Path) -> None:
    place = Place(root=tmp_path / ".demo", repository=REPOSITORY)

    with pytest.raises(ConfigurationError, match="scale"):
        Demo(place, Screen(Console(file=io.StringIO()))).up(scale=0)

    assert not place.root.exists()


def test_a_step_that_fails_says_which_it_was_and_where_its_log_is(
    place: Place, demo: Demo, output: io.StringIO
) -> None:
    error = NotFoundError("There is no such thing", remedy="Make one.")

    with (
        pytest.raises(NotFoundError) as caught,
        demo.screen.step("Start things", log=place.logs),
    ):
        raise error

    assert caught.value.__notes__ == [f"It failed at: Start things. Logs: {place.logs}"]
    assert "done" not in output.getvalue()


def test_an_airflow_that_does_not_answer_is_unhealthy_and_named_in_errors() -> None:
    api = AirflowApi("http://127.0.0.1:1", user="admin", password=PASSWORD)

    assert not api.healthy()
    with pytest.raises(UnreachableError, match="did not answer") as caught:
        api.knows("backup_database")
    assert PASSWORD not in str(caught.value)


def test_the_demo_needs_a_checkout(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="not a checkout"):
        Place.of_checkout(tmp_path)


def _connect(endpoint: Endpoint) -> None:

    socket.create_connection((endpoint.host, endpoint.port or 0), timeout=5).close()
