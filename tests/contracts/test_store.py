"""The contract of every store, run on every store there is."""

from __future__ import annotations

import os
import random
import resource
import socket
import stat
import subprocess
import sys
import time
import urllib.request
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import URLError

import boto3
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from neuroca_backup import registry, stores
from neuroca_backup.errors import (
    AlreadyExistsError,
    ConfigurationError,
    NotFoundError,
    PermanentError,
    StoreUnavailableError,
)
from neuroca_backup.model.retrieval import RetrievalTier
from neuroca_backup.settings import LocalStoreSettings, S3StoreSettings
from neuroca_backup.stores import Archiving, Immutable, Versioned
from neuroca_backup.stores.local import MARKER, LocalStore
from neuroca_backup.stores.s3 import S3Store, streams

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from neuroca_backup.stores import Store

PART = 5 * streams.MIB  # the least that S3 takes, so that many parts stay cheap
EVERYTHING = timedelta(hours=-1)

# moto looks whether a key exists and writes it in two steps; one request at a time makes its
# conditional writes as atomic as those of S3.
MOTO = """
import sys, threading
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple

app, lock = DomainDispatcherApplication(create_backend_app), threading.Lock()

def one_at_a_time(environ, start_response):
    with lock:
        return list(app(environ, start_response))

run_simple("127.0.0.1", int(sys.argv[1]), one_at_a_time, threaded=True)
"""


@contextmanager
def moto_server() -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [sys.executable, "-c", MOTO, str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            assert process.poll() is None, "moto ended before it answered"
            assert time.monotonic() < deadline, "moto did not answer within 60 s"
            try:
                urllib.request.urlopen(url, timeout=5).close()
                break
            except (URLError, ConnectionError):
                time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait(10)


def s3_client(url: str) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-west-2",
        aws_access_key_id="test",
        aws_secret_access_key="not-a-real-secret",
    )


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    with moto_server() as url:
        yield url


def make_s3(tmp_path: Path, url: str) -> S3Store:
    client, bucket = s3_client(url), f"b-{uuid.uuid4().hex}"
    client.create_bucket(
        Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "us-west-2"}
    )
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    return S3Store("primary", bucket=bucket, region="us-west-2", path="/backups", client=client)


def make_local(tmp_path: Path, url: str) -> LocalStore:
    store = LocalStore("primary", tmp_path / "nas")
    store.initialise()
    return store


MAKERS: dict[str, Callable[[Path, str], Store]] = {"s3": make_s3, "local": make_local}


@pytest.fixture(params=sorted(MAKERS))
def store(request: pytest.FixtureRequest, tmp_path: Path, s3_url: str) -> Store:
    return MAKERS[request.param](tmp_path, s3_url)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "FIRST_PART", PART)


def some_bytes(size: int) -> bytes:
    return random.Random(size).randbytes(size)  # noqa: S311 - reproducible, not secret


def write(store: Store, key: str, data: bytes, *, chunk: int = 1_000_003) -> None:
    with store.writer(key) as sink:
        for start in range(0, len(data), chunk):
            assert sink.write(data[start : start + chunk]) == len(data[start : start + chunk])


def keys(store: Store, prefix: str = "") -> list[str]:
    return [found.key for found in store.list(prefix)]


def test_every_kind_of_store_runs_through_this_contract() -> None:
    assert registry.kinds(stores) == sorted(MAKERS)
    assert [registry.load(stores, kind, "STORE") for kind in MAKERS] == [S3Store, LocalStore]


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 4 * PART + 7])
def test_a_stream_of_any_length_comes_back_as_it_was_written(store: Store, size: int) -> None:
    data = some_bytes(size)
    write(store, "database/postgres/member", data)

    with store.reader("database/postgres/member") as source:
        assert source.read() == data
    found = store.stat("database/postgres/member")
    assert (found.key, found.size) == ("database/postgres/member", size)
    assert abs(datetime.now(UTC) - found.modified) < timedelta(minutes=1)
    assert list(store.list()) == [found]


def test_one_huge_write_is_the_same_as_many_small_ones(store: Store) -> None:
    data = some_bytes(3 * PART + 1)
    write(store, "huge", data, chunk=len(data))
    write(store, "small", data[:40_000], chunk=3)
    assert store.get("huge") == data
    assert store.get("small") == data[:40_000]


def test_closing_the_stream_early_does_not_decide_anything(store: Store) -> None:
    def failing() -> None:
        with store.writer("a/b") as sink:
            sink.write(b"half")
            sink.close()
            raise RuntimeError("dump failed")

    with pytest.raises(RuntimeError, match="dump failed"):
        failing()
    assert keys(store) == []

    with store.writer("a/b") as sink:
        sink.write(b"whole")
        sink.close()
        assert keys(store) == []
    assert store.get("a/b") == b"whole"


@pytest.mark.parametrize("size", [10, 2 * PART + 10])
@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_a_block_that_raises_leaves_nothing(
    store: Store, size: int, failure: type[BaseException]
) -> None:
    def interrupted() -> None:
        with store.writer("database/member") as sink:
            sink.write(some_bytes(size))
            raise failure

    with pytest.raises(failure):
        interrupted()
    assert keys(store) == []
    assert list(store.folders()) == []
    assert store.sweep_uploads(older_than=EVERYTHING) == 0
    with pytest.raises(NotFoundError):
        store.get("database/member")


def test_a_block_that_raises_leaves_what_was_there_before(store: Store) -> None:
    store.put("member", b"before")

    def failing() -> None:
        with store.writer("member") as sink:
            sink.write(some_bytes(PART + 1))
            raise RuntimeError("dump failed")

    with pytest.raises(RuntimeError, match="dump failed"):
        failing()
    assert store.get("member") == b"before"


def test_writing_replaces(store: Store) -> None:
    store.put("member", b"one")
    store.put("member", b"two")
    assert store.get("member") == b"two"
    write(store, "member", b"three")
    assert store.get("member") == b"three"


def test_a_writer_whose_upload_is_swept_away_fails_and_leaves_nothing(store: Store) -> None:
    def swept() -> None:
        with store.writer("member") as sink:
            sink.write(some_bytes(2 * PART))
            assert store.sweep_uploads(older_than=EVERYTHING) == 1

    with pytest.raises(StoreUnavailableError):
        swept()
    assert keys(store) == []


def test_of_many_simultaneous_creators_exactly_one_wins(store: Store) -> None:
    def create(number: int) -> int | None:
        try:
            store.put("manifest.json", b"by %d" % number, create_only=True)
        except AlreadyExistsError:
            return None
        return number

    with ThreadPoolExecutor(16) as pool:
        winners = [number for number in pool.map(create, range(16)) if number is not None]
    assert len(winners) == 1
    assert store.get("manifest.json") == b"by %d" % winners[0]
    assert keys(store) == ["manifest.json"]
    with pytest.raises(AlreadyExistsError, match=r"manifest\.json"):
        store.put("manifest.json", b"late", create_only=True)


def test_creating_works_again_after_a_delete(store: Store) -> None:
    store.put("manifest.json", b"one", create_only=True)
    store.delete("manifest.json")
    store.put("manifest.json", b"two", create_only=True)
    assert store.get("manifest.json") == b"two"


@pytest.mark.parametrize(
    ("start", "length"),
    [
        (0, None),
        (0, 0),
        (0, 1),
        (0, 100),
        (0, 101),
        (1, None),
        (1, 98),
        (99, 1),
        (99, 50),
        (100, None),
        (100, 1),
        (100, 0),
        (5_000, 7),
    ],
)
def test_a_range_gives_what_there_is_of_it(store: Store, start: int, length: int | None) -> None:
    data = some_bytes(100)
    store.put("member", data)
    end = None if length is None else start + length
    with store.reader("member", start=start, length=length) as source:
        assert source.read() == data[start:end]
        assert source.read(1) == b""


def test_a_range_of_an_empty_object_is_empty(store: Store) -> None:
    store.put("empty", b"")
    with store.reader("empty", start=0, length=5) as source:
        assert source.read() == b""
    assert store.get("empty") == b""


def test_what_is_missing_is_named(store: Store) -> None:
    store.put("a/b", b"there")
    calls = [
        lambda: store.get("a/missing"),
        lambda: store.stat("a/missing"),
        lambda: store.reader("a/missing").__enter__(),
        lambda: store.reader("a/missing", start=3, length=0).__enter__(),
        lambda: store.get("a"),
        lambda: store.stat("a"),
        lambda: store.get("a/b/c"),
        lambda: store.stat("a/b/c"),
    ]
    for call in calls:
        with pytest.raises(NotFoundError) as caught:
            call()
        assert store.location in str(caught.value)
        assert "primary" in str(caught.value)
    assert store.get("a/b") == b"there"


def test_folders_end_at_their_border(store: Store) -> None:
    for key in ("database/postgres/1/m", "database/postgres/2/m", "database/postgres2/1/m"):
        store.put(key, b"x")
    store.put("database/postgres-old/1/m", b"x")
    store.put("database/note", b"x")

    assert keys(store, "database/postgres") == ["database/postgres/1/m", "database/postgres/2/m"]
    assert keys(store, "database/postgres/") == keys(store, "database/postgres")
    assert keys(store, "database/pos") == []
    assert keys(store, "logs") == []
    assert list(store.folders("database")) == ["postgres", "postgres-old", "postgres2"]
    assert list(store.folders("database/postgres")) == ["1", "2"]
    assert list(store.folders()) == ["database"]
    assert list(store.folders("logs")) == []


def test_keys_are_listed_in_the_order_of_their_bytes(store: Store) -> None:
    names = ["a-b/m", "a/m", "a.json", "a0", "B", "a/-/m", "ä", "z", "a/n/..m"]
    for name in names:
        store.put(name, b"x")
    assert keys(store) == sorted(names, key=str.encode)


def test_more_objects_than_one_page_are_all_listed(store: Store) -> None:
    expected = [f"logs/{number:05d}" for number in range(1_050)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda key: store.put(key, b""), expected))
    assert keys(store, "logs") == expected


def test_deleting_removes_exactly_that_key(store: Store) -> None:
    for key in ("d/a", "d/a2", "d/a.json", "d2/a"):
        store.put(key, b"x")
    store.delete("d/a")
    assert keys(store) == ["d/a.json", "d/a2", "d2/a"]
    store.delete("d/a")
    store.delete("d")
    store.delete("never/was/there")
    assert keys(store) == ["d/a.json", "d/a2", "d2/a"]
    store.delete("d2/a")
    assert list(store.folders()) == ["d"]


def test_a_copy_across_different_services_is_declined(
    store: Store, tmp_path: Path, s3_url: str
) -> None:
    (tmp_path / "other").mkdir()
    other = next(
        maker(tmp_path / "other", s3_url)
        for kind, maker in MAKERS.items()
        if registry.load(stores, kind, "STORE") is not type(store)
    )
    other.put("member", b"x")
    assert store.copy_from(other, "member") is False
    assert keys(store) == []


def test_a_store_that_is_there_passes_its_check(store: Store) -> None:
    store.check()
    assert store.name == "primary"
    assert store.location in repr(store)
    assert "secret" not in repr(store)


ESCAPES = st.lists(
    st.sampled_from(["..", ".", "", "a", "/", "\0", "\n", "\ud800", "%2e%2e", "..a", "~"]),
    min_size=1,
    max_size=6,
).map("/".join)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(key=ESCAPES)
@example(key="../outside")
@example(key="a/../../outside")
@example(key="/etc/passwd")
@example(key="")
def test_no_key_leads_out_of_the_store(store: Store, tmp_path: Path, key: str) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"untouched")
    around = sorted(path.name for path in tmp_path.iterdir())
    bad = not key.isprintable() or any(part in {"", ".", ".."} for part in key.split("/"))
    if bad:
        for call in (
            lambda: store.put(key, b"x"),
            lambda: store.writer(key).__enter__(),
            lambda: store.get(key),
            lambda: store.stat(key),
            lambda: store.delete(key),
        ):
            with pytest.raises(PermanentError, match="is not a key"):
                call()
    else:
        store.put(key, b"x")
        assert keys(store) == [key]
        store.delete(key)
    assert outside.read_bytes() == b"untouched"
    assert sorted(path.name for path in tmp_path.iterdir()) == around
    assert keys(store) == []


class Connected:
    """Connections that hold one S3 client."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.asked: list[tuple[str, str | None, str | None]] = []

    def endpoint(self, connection_id: str) -> Any:
        raise NotImplementedError

    def aws_client(self, service: str, *, region: str | None, connection_id: str | None) -> Any:
        self.asked.append((service, region, connection_id))
        return self.client


def test_settings_make_the_store_they_describe_and_create_nothing(
    tmp_path: Path, s3_url: str
) -> None:
    connections = Connected(s3_client(s3_url))
    s3 = S3Store.from_settings(
        "secondary",
        S3StoreSettings(
            type="s3", bucket="not-there", region="eu-central-1", path="/backups", connection="aws"
        ),
        connections,
    )
    assert s3.location == "s3://not-there/backups"
    assert connections.asked == [("s3", "eu-central-1", "aws")]
    with pytest.raises(NotFoundError, match="bucket does not exist"):
        s3.check()

    local = LocalStore.from_settings(
        "tertiary", LocalStoreSettings(type="local", path=tmp_path / "nas"), connections
    )
    assert local.location == f"file://{tmp_path}/nas"
    with pytest.raises(NotFoundError, match="--initialise-stores"):
        local.check()
    assert list(tmp_path.iterdir()) == []


# What only a directory promises.


@pytest.fixture
def local(tmp_path: Path) -> LocalStore:
    return make_local(tmp_path, "")


def test_a_nas_that_is_not_mounted_is_never_replaced_by_a_directory(
    local: LocalStore, tmp_path: Path
) -> None:
    local.put("a", b"x")
    (tmp_path / "nas").rename(tmp_path / "unmounted")
    (tmp_path / "nas").mkdir()
    for call in (
        local.check,
        lambda: local.put("b", b"x"),
        lambda: local.writer("b").__enter__(),
        lambda: list(local.list()),
        lambda: list(local.folders()),
        lambda: local.delete("a"),
        lambda: local.sweep_uploads(older_than=EVERYTHING),
    ):
        with pytest.raises(NotFoundError, match="not mounted"):
            call()
    assert list((tmp_path / "nas").iterdir()) == []


def test_initialising_is_repeatable_and_refuses_a_directory_in_use(tmp_path: Path) -> None:
    store = LocalStore("primary", tmp_path / "nas")
    store.initialise()
    store.put("a", b"x")
    store.initialise()
    assert store.get("a") == b"x"

    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter").write_text("x")
    with pytest.raises(ConfigurationError, match="not empty"):
        LocalStore("primary", tmp_path / "home").initialise()
    with pytest.raises(NotFoundError, match="does not exist"):
        LocalStore("primary", tmp_path / "missing" / "nas").initialise()
    with pytest.raises(ConfigurationError, match="not absolute"):
        LocalStore("primary", Path("nas"))


def test_directories_and_files_are_private(local: LocalStore, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        local.put("a/b/c", b"x")
        with local.writer("a/d") as sink:
            sink.write(b"x")
            modes = {path: path.stat().st_mode for path in (tmp_path / "nas").rglob("*")}
    finally:
        os.umask(before)
    assert len(modes) == 5
    for path, mode in modes.items():
        assert stat.S_IMODE(mode) == (0o700 if stat.S_ISDIR(mode) else 0o600), path


def test_no_symbolic_link_leads_out_of_the_store(local: LocalStore, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"untouched")
    (tmp_path / "nas" / "link").symlink_to(outside)
    for call in (
        lambda: local.get("link/secret"),
        lambda: local.put("link/secret", b"x"),
        lambda: local.put("link/new", b"x"),
        lambda: local.delete("link/secret"),
        lambda: list(local.list()),
        lambda: list(local.list("link")),
    ):
        with pytest.raises(PermanentError, match="symbolic link"):
            call()
    assert {path.name: path.read_bytes() for path in outside.iterdir()} == {"secret": b"untouched"}


def test_the_stores_own_files_are_no_objects(local: LocalStore) -> None:
    with pytest.raises(PermanentError, match="is not a key"):
        local.delete(MARKER)
    with local.writer("a/b") as sink:
        sink.write(b"x")
        assert keys(local) == []
        assert list(local.folders()) == []


PROJECT_PATH = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
KILLED = """
import os, signal, sys
from pathlib import Path
from neuroca_backup.stores.local import LocalStore

with LocalStore("primary", Path(sys.argv[1])).writer("a/b") as sink:
    sink.write(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_temporary_files_of_dead_writers_are_swept_once_they_are_old(
    local: LocalStore, tmp_path: Path
) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "nas")], check=False, env=PROJECT_PATH
    )
    assert killed.returncode == -9
    (temporary,) = (tmp_path / "nas" / "a").iterdir()
    assert local.sweep_uploads(older_than=timedelta(hours=1)) == 0
    long_ago = time.time() - 7_200
    os.utime(temporary, (long_ago, long_ago))
    assert local.sweep_uploads(older_than=timedelta(hours=1)) == 1
    assert not temporary.exists()


def test_a_full_disk_is_permanent_and_leaves_nothing(local: LocalStore) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(PermanentError, match="no space is left") as caught:
            write(local, "a/big", some_bytes(1_000_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "Free space" in str(caught.value)
    assert local.sweep_uploads(older_than=EVERYTHING) == 0
    assert keys(local) == []


def test_a_failed_write_that_the_caller_swallowed_is_no_success(local: LocalStore) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def careless() -> None:
        with local.writer("a/big") as sink:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
            try:
                with pytest.raises(PermanentError):
                    sink.write(some_bytes(1_000_000))
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            with suppress(StoreUnavailableError):
                sink.write(b"the end")

    with pytest.raises(StoreUnavailableError, match="writing went on"):
        careless()
    assert keys(local) == []


def test_a_file_that_shrinks_while_it_is_read_is_an_error(
    local: LocalStore, tmp_path: Path
) -> None:
    local.put("a", some_bytes(5_000_000))
    with local.reader("a") as source:
        source.read(10)
        os.truncate(tmp_path / "nas" / "a", 2_000_000)
        with pytest.raises(StoreUnavailableError, match="shorter"):
            source.read()


def test_a_file_and_a_folder_cannot_share_a_name(local: LocalStore) -> None:
    local.put("a", b"x")
    with pytest.raises(PermanentError, match="same name"):
        local.put("a/b", b"x")
    assert local.get("a") == b"x"


FLAT = """
import resource, sys
from pathlib import Path
from neuroca_backup.stores.local import LocalStore

store, block = LocalStore("primary", Path(sys.argv[1])), bytes(1_000_000)
store.initialise()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with store.writer("big") as sink:
    for _ in range(300):
        sink.write(block)
with store.reader("big") as source:
    while source.read(1_000_000):
        pass
assert store.stat("big").size == 300_000_000
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_stays_flat_for_300_megabytes(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FLAT, str(tmp_path / "nas")],
        capture_output=True,
        check=True,
        text=True,
        env=PROJECT_PATH,
    )
    assert int(done.stdout) < 20_000, "KiB of growth"


def test_what_is_in_no_archive_can_be_read_at_once(store: Store) -> None:
    store.put("member", b"x")
    found = store.stat("member")
    assert (found.readable, found.retrieving, found.readable_until) == (True, False, None)
    assert [one.readable for one in store.list()] == [True]
    if isinstance(store, Archiving):
        assert store.retrieve("member", tier=RetrievalTier.STANDARD, days=1) == found


def test_only_a_bucket_can_refuse_deletions_keep_versions_or_archive(store: Store) -> None:
    able = [isinstance(store, one) for one in (Immutable, Versioned, Archiving)]
    assert able == [isinstance(store, S3Store)] * 3
    if isinstance(store, Immutable):
        store.put("member", b"x")
        assert (store.lock_margin, store.locks()) == (None, False)
        with pytest.raises(ConfigurationError, match="lock is not set"):
            store.retain("member", until=datetime.now(UTC))
