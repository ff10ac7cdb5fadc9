"""What only S3 promises: multipart uploads, broken transfers, versions, and its refusals."""

from __future__ import annotations

import base64
import hashlib
import os
import pickle
import random
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.error import URLError
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from botocore.config import Config

from neuroca_backup.errors import (
    AccessDeniedError,
    AlreadyExistsError,
    ArchivedError,
    BackupError,
    ConfigurationError,
    NotFoundError,
    PermanentError,
    StoreUnavailableError,
    UnreachableError,
)
from neuroca_backup.stores.s3 import S3Store, _archived, streams

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

PART = 5 * streams.MIB  # the least that S3 takes
EVERYTHING = timedelta(hours=-1)
SECRET = "not-a-real-secret"
BEFORE_S3 = timedelta(days=365 * 50)  # moto says of every upload that it began in 2010


@contextmanager
def moto_server() -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
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


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with moto_server() as address:
        yield address


def s3_client(url: str, *, access_key: str = "test", attempts: int = 2) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-west-2",
        aws_access_key_id=access_key,
        aws_secret_access_key=SECRET,
        config=Config(
            retries={"total_max_attempts": attempts, "mode": "standard"},
            connect_timeout=2,
            read_timeout=20,
        ),
    )


@pytest.fixture
def client(url: str) -> Any:
    return s3_client(url)


@pytest.fixture
def bucket(client: Any) -> str:
    name = f"b-{uuid.uuid4().hex}"
    client.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
    client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    return name


def store_of(client: Any, bucket: str, path: str = "/backups") -> S3Store:
    return S3Store("primary", bucket=bucket, region="us-west-2", path=path, client=client)


@pytest.fixture
def store(client: Any, bucket: str) -> S3Store:
    return store_of(client, bucket)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "FIRST_PART", PART)


def some_bytes(size: int) -> bytes:
    return random.Random(size).randbytes(size)  # noqa: S311 - reproducible, not secret


def write(store: S3Store, key: str, data: bytes) -> None:
    with store.writer(key) as sink:
        sink.write(data)


def uploads(client: Any, bucket: str) -> list[str]:
    return [u["Key"] for u in client.list_multipart_uploads(Bucket=bucket).get("Uploads", ())]


def versions(client: Any, bucket: str) -> list[str]:
    page = client.list_object_versions(Bucket=bucket)
    return sorted(v["Key"] for v in [*page.get("Versions", ()), *page.get("DeleteMarkers", ())])


def body_of(request: Any) -> bytes:
    body = request.body
    return bytes(body.getvalue() if hasattr(body, "getvalue") else body)


def answer(status: int, code: str) -> AWSResponse:
    """An answer of S3 that moto never gives."""

    class Raw:
        def stream(self) -> Iterator[bytes]:
            yield f"<Error><Code>{code}</Code><Message>Injected.</Message></Error>".encode()

    return AWSResponse("http://injected", status, {"Content-Type": "application/xml"}, Raw())


def answering(client: Any, operation: str, *answers: AWSResponse | None) -> list[str]:
    """Give `answers` to the next calls of `operation`; None lets one through. Returns the calls."""
    left, calls = list(answers), []

    def before_send(**_: Any) -> AWSResponse | None:
        calls.append(operation)
        return left.pop(0) if left else None

    client.meta.events.register(f"before-send.s3.{operation}", before_send)
    return calls


class CuttingProxy:
    """Passes bytes to a server and back, and resets a connection after `after` bytes back."""

    def __init__(self, url: str, *, after: int, cuts: int) -> None:
        self._server = ("127.0.0.1", urlsplit(url).port)
        self._after, self.cuts_left, self.cuts_done = after, cuts, 0
        self.between: Callable[[], None] = lambda: None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._server)
                threading.Thread(target=self._forth, args=(near, far), daemon=True).start()
                threading.Thread(target=self._back, args=(near, far), daemon=True).start()

    def _forth(self, near: socket.socket, far: socket.socket) -> None:
        with suppress(OSError):
            while data := near.recv(65_536):
                far.sendall(data)
            far.shutdown(socket.SHUT_WR)

    def _back(self, near: socket.socket, far: socket.socket) -> None:
        passed = 0
        with suppress(OSError), near, far:
            while data := far.recv(65_536):
                if self.cuts_left and passed + len(data) > self._after:
                    near.sendall(data[: self._after - passed])
                    self.cuts_left -= 1
                    self.cuts_done += 1
                    self.between()
                    # Without lingering, closing is a reset: the reader cannot take it for an end.
                    near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    near.shutdown(socket.SHUT_RDWR)
                    return
                near.sendall(data)
                passed += len(data)


@pytest.fixture
def cutting(url: str) -> Iterator[Callable[..., CuttingProxy]]:
    proxies: list[CuttingProxy] = []

    def make(*, after: int, cuts: int) -> CuttingProxy:
        proxies.append(CuttingProxy(url, after=after, cuts=cuts))
        return proxies[-1]

    yield make
    for proxy in proxies:
        proxy.close()


# Writing


def test_ten_thousand_parts_hold_five_terabytes_in_parts_that_s3_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()  # the parts of production, not of these tests
    sent = largest = 0
    for _ in range(streams.MAX_PARTS):
        largest = streams.part_size(sent)
        sent += largest
    assert streams.part_size(0) == 16 * streams.MIB
    assert sent > 5 * 1024**4
    assert largest < 5 * 1024**3
    assert streams.part_size(500 * 10**9) < 300 * streams.MIB


def test_a_stream_longer_than_all_parts_together_is_refused(
    store: S3Store, client: Any, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "MAX_PARTS", 2)
    with pytest.raises(PermanentError, match="Split the source"):
        write(store, "member", bytes(4 * PART))
    assert versions(client, bucket) == uploads(client, bucket) == []


def test_every_byte_sent_is_covered_by_an_explicit_sha256(store: S3Store, client: Any) -> None:
    sent: list[bool] = []

    def look(request: Any, **_: Any) -> None:
        digest = base64.b64encode(hashlib.sha256(body_of(request)).digest())
        claimed = request.headers["x-amz-checksum-sha256"]
        sent.append(claimed in {digest, digest.decode()})
        sent.append(not [n for n in request.headers if n.lower().startswith("x-amz-meta")])

    for operation in ("PutObject", "UploadPart"):
        client.meta.events.register(f"before-send.s3.{operation}", look)
    write(store, "small", b"abc")
    write(store, "large", some_bytes(3 * PART))
    store.put("put", b"abcd")
    assert sent == [True] * 2 * 5


def test_less_than_a_part_is_a_single_put(store: S3Store, client: Any) -> None:
    started = answering(client, "CreateMultipartUpload")
    write(store, "small", bytes(PART - 1))
    assert started == []
    write(store, "large", bytes(PART + 1))
    assert len(started) == 1


@pytest.mark.parametrize(
    ("operation", "answers"),
    [
        ("CreateMultipartUpload", [answer(403, "AccessDenied")]),
        ("UploadPart", [None, answer(403, "AccessDenied")]),
        ("UploadPart", [None, None, None, answer(403, "AccessDenied")]),
        ("CompleteMultipartUpload", [answer(403, "AccessDenied")]),
    ],
)
def test_a_refusal_at_any_step_leaves_no_object_and_no_upload(
    store: S3Store,
    client: Any,
    bucket: str,
    operation: str,
    answers: list[AWSResponse | None],
) -> None:
    answering(client, operation, *answers)
    with pytest.raises(AccessDeniedError, match=r"primary.*needs s3:PutObject"):
        write(store, "member", some_bytes(6 * PART))
    assert versions(client, bucket) == []
    assert uploads(client, bucket) == []


def test_a_part_that_failed_is_not_forgotten_when_the_caller_goes_on(
    store: S3Store, client: Any, bucket: str
) -> None:
    answering(client, "CreateMultipartUpload", answer(403, "AccessDenied"))

    def careless() -> None:
        with store.writer("member") as sink:
            with suppress(AccessDeniedError):
                sink.write(bytes(PART))
            with suppress(StoreUnavailableError):
                sink.write(b"the end")

    with pytest.raises(StoreUnavailableError, match="writing went on"):
        careless()
    assert versions(client, bucket) == []


def test_an_upload_that_survives_an_abort_is_aborted_again(
    store: S3Store, client: Any, bucket: str
) -> None:
    class Raw:
        def stream(self) -> Iterator[bytes]:
            yield b""

    survived = AWSResponse("http://injected", 204, {}, Raw())
    aborts = answering(client, "AbortMultipartUpload", survived, survived)

    def failing() -> None:
        with store.writer("member") as sink:
            sink.write(bytes(2 * PART))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        failing()
    assert len(aborts) == 3
    assert uploads(client, bucket) == []


FLAT = """
import resource, sys
import boto3
from neuroca_backup.stores.s3 import S3Store

client = boto3.client("s3", endpoint_url=sys.argv[1], region_name="us-west-2",
                      aws_access_key_id="test", aws_secret_access_key="test")
store = S3Store("primary", bucket=sys.argv[2], region="us-west-2", client=client)
block = bytes(10**6)
client.list_buckets()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with store.writer("big") as sink:
    for _ in range(200):
        sink.write(block)
with store.reader("big") as source:
    while source.read(10**6):
        pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_stays_near_four_parts_for_200_megabytes(url: str, bucket: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FLAT, url, bucket],
        capture_output=True,
        check=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert int(done.stdout) < 130_000, "KiB of growth"


# Conditional writes


def test_a_conflict_is_tried_again_and_may_be_won(store: S3Store, client: Any) -> None:
    conflict = answer(409, "ConditionalRequestConflict")
    calls = answering(client, "PutObject", conflict, conflict)
    store.put("manifest.json", b"mine", create_only=True)
    assert len(calls) == 3
    assert store.get("manifest.json") == b"mine"


@pytest.mark.parametrize(
    ("there", "outcome"), [("theirs", AlreadyExistsError), ("", StoreUnavailableError)]
)
def test_endless_conflicts_are_lost_only_if_the_object_is_there(
    store: S3Store,
    client: Any,
    there: str,
    outcome: type[BackupError],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("neuroca_backup.stores.s3._CONFLICT_PAUSE_SECONDS", 0.001)
    if there:
        store.put("manifest.json", there.encode())
    answering(client, "PutObject", *[answer(409, "ConditionalRequestConflict")] * 5)
    with pytest.raises(outcome):
        store.put("manifest.json", b"mine", create_only=True)


def test_a_write_whose_answer_was_lost_is_recognised_as_ones_own(
    store: S3Store, client: Any, bucket: str
) -> None:
    twin = s3_client(client.meta.endpoint_url)

    def stored_but_unanswered(request: Any, **_: Any) -> AWSResponse | None:
        if body_of(request) == b"mine" and not versions(twin, bucket):
            twin.put_object(Bucket=bucket, Key="backups/manifest.json", Body=b"mine")
            return answer(500, "InternalError")
        return None

    client.meta.events.register("before-send.s3.PutObject", stored_but_unanswered)
    store.put("manifest.json", b"mine", create_only=True)
    with pytest.raises(AlreadyExistsError):
        store.put("manifest.json", b"mine too", create_only=True)
    assert store.get("manifest.json") == b"mine"


# Reading


def test_a_transfer_cut_once_goes_on_where_it_stopped(
    store: S3Store, bucket: str, cutting: Callable[..., CuttingProxy]
) -> None:
    data = some_bytes(6_000_000)
    store.put("member", data)
    proxy = cutting(after=2_000_000, cuts=1)
    with store_of(s3_client(proxy.url), bucket).reader("member") as source:
        assert source.read() == data
    assert proxy.cuts_done == 1

    proxy = cutting(after=1_000_000, cuts=2)
    through = store_of(s3_client(proxy.url), bucket)
    with through.reader("member", start=7, length=4_000_000) as source:
        assert source.read() == data[7:4_000_007]
    assert proxy.cuts_done == 2


def test_a_transfer_cut_every_time_is_an_error(
    store: S3Store, bucket: str, cutting: Callable[..., CuttingProxy]
) -> None:
    store.put("member", some_bytes(6_000_000))
    proxy = cutting(after=100_000, cuts=1_000)
    with (
        store_of(s3_client(proxy.url), bucket).reader("member") as source,
        pytest.raises(StoreUnavailableError, match="reading stopped at byte") as caught,
    ):
        source.read()
    assert proxy.cuts_done == 9
    assert bucket in str(caught.value)


def test_bytes_of_a_replaced_object_are_never_mixed_in(
    store: S3Store, bucket: str, cutting: Callable[..., CuttingProxy]
) -> None:
    store.put("member", b"a" * 6_000_000)
    proxy = cutting(after=1_000_000, cuts=1)
    proxy.between = lambda: store.put("member", b"b" * 6_000_000)
    with (
        store_of(s3_client(proxy.url), bucket).reader("member") as source,
        pytest.raises(StoreUnavailableError, match="replaced while it was read"),
    ):
        source.read()


# Listing and deleting


def test_listing_asks_for_pages_only_as_they_are_needed(store: S3Store, client: Any) -> None:
    for number in range(5):
        store.put(f"logs/{number}", b"x")
    client.meta.events.register(
        "before-parameter-build.s3.ListObjectsV2",
        lambda params, **_: params.setdefault("MaxKeys", 2),
    )
    calls = answering(client, "ListObjectsV2")
    found = store.list("logs")
    assert calls == []
    assert [next(found).key, next(found).key] == ["logs/0", "logs/1"]
    assert len(calls) == 1
    assert [item.key for item in found] == ["logs/2", "logs/3", "logs/4"]
    assert len(calls) == 3


def test_deleting_removes_all_versions_and_markers_of_one_key_only(
    store: S3Store, client: Any, bucket: str
) -> None:
    for body in (b"1", b"2", b"3"):
        store.put("a/member", body)
        store.put("a/member2", body)
    client.delete_object(Bucket=bucket, Key="backups/a/member")
    client.put_object(Bucket=bucket, Key="a/member", Body=b"of others")
    store.delete("a/member")
    assert versions(client, bucket) == ["a/member", *["backups/a/member2"] * 3]


def test_the_current_version_goes_last(store: S3Store, client: Any, bucket: str) -> None:
    store.put("member", b"old")
    store.put("member", b"new")
    answering(client, "DeleteObjects", None, answer(403, "AccessDenied"))
    with pytest.raises(AccessDeniedError, match="s3:DeleteObjectVersion"):
        store.delete("member")
    assert store.get("member") == b"new"
    assert versions(client, bucket) == ["backups/member"]


def test_a_locked_object_is_reported_not_skipped(client: Any) -> None:
    name = f"b-{uuid.uuid4().hex}"
    client.create_bucket(
        Bucket=name,
        CreateBucketConfiguration={"LocationConstraint": "us-west-2"},
        ObjectLockEnabledForBucket=True,
    )
    client.put_object(Bucket=name, Key="member", Body=b"x", ObjectLockLegalHoldStatus="ON")
    store = store_of(client, name, path="")
    with pytest.raises(AccessDeniedError, match="no lock on the object"):
        store.delete("member")
    assert store.get("member") == b"x"


def test_only_old_uploads_below_the_path_are_swept(
    store: S3Store, client: Any, bucket: str
) -> None:
    for key in ("backups/a", "backups/b", "backups2/c", "d"):
        client.create_multipart_upload(Bucket=bucket, Key=key)
    assert store.sweep_uploads(older_than=BEFORE_S3) == 0
    assert len(uploads(client, bucket)) == 4
    assert store.sweep_uploads(older_than=timedelta(hours=24)) == 2
    assert sorted(uploads(client, bucket)) == ["backups2/c", "d"]


# Copying


@pytest.mark.parametrize("threshold", [streams.MIB * 256, PART])
def test_a_copy_within_the_service_moves_no_bytes_through_here(
    store: S3Store, client: Any, url: str, threshold: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neuroca_backup.stores.s3._COPY_PART", threshold)
    data = some_bytes(2 * PART + 3)
    store.put("a/member", data)
    client.create_bucket(
        Bucket=f"{store.location[5:].split('/')[0]}-2",
        CreateBucketConfiguration={"LocationConstraint": "us-west-2"},
    )
    twin = s3_client(url)
    other = store_of(twin, f"{store.location[5:].split('/')[0]}-2", path="dr/x")
    reads, puts = answering(client, "GetObject"), answering(twin, "PutObject")
    assert other.copy_from(store, "a/member") is True
    assert reads == puts == []
    assert other.get("a/member") == data
    with pytest.raises(NotFoundError, match=store.location):
        other.copy_from(store, "a/missing")


def test_a_copy_is_declined_across_endpoints_and_accounts(
    store: S3Store, bucket: str, url: str, cutting: Callable[..., CuttingProxy]
) -> None:
    store.put("member", b"x")
    elsewhere = store_of(s3_client(cutting(after=0, cuts=0).url), bucket, path="dr")
    stranger = store_of(s3_client(url, access_key="other"), bucket, path="dr")
    for other in (elsewhere, stranger):
        assert other.copy_from(store, "member") is False
        assert list(other.list()) == []


# Refusals


def test_the_path_is_normalised_and_the_repr_holds_no_secret(client: Any, bucket: str) -> None:
    for path, location in {
        "/backups": f"s3://{bucket}/backups",
        "a//b/": f"s3://{bucket}/a/b",
        "": f"s3://{bucket}",
        "/": f"s3://{bucket}",
    }.items():
        store = store_of(client, bucket, path=path)
        assert store.location == location
        assert repr(store) == f"S3Store(name='primary', location={location!r})"
        store.put("key", path.encode())
        assert store.get("key") == path.encode()
    assert versions(client, bucket) == ["a/b/key", "backups/key", "key", "key"]


def test_a_bucket_in_another_region_is_a_configuration_error(client: Any, bucket: str) -> None:
    store = S3Store("secondary", bucket=bucket, region="eu-central-1", client=client)
    with pytest.raises(ConfigurationError, match="us-west-2, not in eu-central-1"):
        store.check()


def test_a_missing_bucket_is_named_with_the_remedy(client: Any) -> None:
    store = store_of(client, "no-such-bucket")
    for call in (store.check, lambda: list(store.list()), lambda: store.put("a", b"")):
        with pytest.raises(NotFoundError, match=r"no-such-bucket.*Create it"):
            call()


def test_an_endpoint_that_does_not_answer_is_unreachable(bucket: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        store = store_of(s3_client(f"http://127.0.0.1:{free.getsockname()[1]}"), bucket)
        with pytest.raises(UnreachableError, match="did not answer"):
            store.check()


def test_an_archived_object_must_be_restored_first(
    store: S3Store, client: Any, bucket: str
) -> None:
    client.put_object(Bucket=bucket, Key="backups/cold", Body=b"x", StorageClass="GLACIER")
    with pytest.raises(PermanentError, match="Restore it from Glacier first"):
        store.get("cold")
    assert store.stat("cold").storage_class == "GLACIER"
    assert next(store.list()).storage_class == "GLACIER"


@pytest.mark.parametrize(
    ("storage_class", "archived"),
    [
        ("GLACIER", True),
        ("DEEP_ARCHIVE", True),
        ("GLACIER_IR", False),
        ("STANDARD_IA", False),
        ("INTELLIGENT_TIERING", False),
    ],
)
def test_what_is_archived_is_told_without_reading_it(
    store: S3Store,
    client: Any,
    bucket: str,
    storage_class: str,
    archived: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    client.put_object(Bucket=bucket, Key="backups/one", Body=b"x", StorageClass=storage_class)
    assert store.stat("one").archived is archived
    assert next(store.list()).archived is archived
    if archived:
        with pytest.raises(ArchivedError):
            store.get("one")
        client.restore_object(Bucket=bucket, Key="backups/one", RestoreRequest={"Days": 2})
    assert store.stat("one").archived is False
    assert store.get("one") == b"x"


def test_archives_of_intelligent_tiering_and_copies_under_way_are_told_by_their_headers() -> None:
    deep = {"StorageClass": "INTELLIGENT_TIERING", "ArchiveStatus": "DEEP_ARCHIVE_ACCESS"}
    assert _archived(deep)
    assert _archived({"StorageClass": "GLACIER", "Restore": 'ongoing-request="true"'})
    assert not _archived({**deep, "Restore": 'ongoing-request="false", expiry-date="..."'})
    assert not _archived({})


@pytest.mark.parametrize(
    ("status", "code", "expected", "words"),
    [
        (403, "AccessDenied", AccessDeniedError, "s3:GetObject"),
        (403, "InvalidAccessKeyId", AccessDeniedError, "access key is unknown"),
        (403, "SignatureDoesNotMatch", AccessDeniedError, "secret key"),
        (400, "ExpiredToken", AccessDeniedError, "expired"),
        (403, "RequestTimeTooSkewed", PermanentError, "clock"),
        (404, "NoSuchBucket", NotFoundError, "bucket does not exist"),
        (503, "SlowDown", StoreUnavailableError, "overloaded"),
        (500, "InternalError", StoreUnavailableError, "fault"),
        (502, "Whatever", StoreUnavailableError, "fault"),
        (400, "Unheard", PermanentError, "Injected"),
    ],
)
def test_each_refusal_is_told_in_this_projects_words(
    store: S3Store, client: Any, status: int, code: str, expected: type[BackupError], words: str
) -> None:
    answering(client, "GetObject", *[answer(status, code)] * 2)
    with pytest.raises(expected, match=words) as caught:
        store.get("a/member")
    error = caught.value
    assert type(error) is expected
    assert f"{store.location}/a/member" in str(error)
    assert "primary" in str(error)
    assert code in str(error)
    assert SECRET not in str(error) + repr(error.facts)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # noqa: S301 - our own bytes
    assert error.facts["code"] == code


def test_a_check_without_permission_lists_what_a_store_needs(store: S3Store, client: Any) -> None:
    answering(client, "HeadBucket", answer(403, "AccessDenied"))
    with pytest.raises(AccessDeniedError, match=r"HeadBucket needs s3:ListBucket.*PutObject"):
        store.check()


def test_missing_credentials_are_told_apart_from_a_missing_network(
    bucket: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    bare = boto3.session.Session().client("s3", endpoint_url=url, region_name="us-west-2")
    with pytest.raises(AccessDeniedError, match="no usable credentials"):
        store_of(bare, bucket).check()
