"""An emulator of S3 with buckets made to order, and its retrievals made slow."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import uuid
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3

from neuroca_backup.stores.s3 import S3Store

if TYPE_CHECKING:
    from collections.abc import Iterator

REGION = "us-west-2"


@contextmanager
def emulator() -> Iterator[str]:
    """Give the URL of an emulator of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
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
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def client(url: str) -> Any:
    """Return a client of the emulator."""
    return boto3.client(
        "s3",
        endpoint_url=url,
        region_name=REGION,
        aws_access_key_id="test",
        aws_secret_access_key="not-a-real-secret",
    )


def bucket(url: str, *, versioned: bool = True, locking: bool = False) -> str:
    """Make a bucket and return its name; one with Object Lock keeps versions, too."""
    name = f"b-{uuid.uuid4().hex}"
    s3 = client(url)
    s3.create_bucket(
        Bucket=name,
        CreateBucketConfiguration={"LocationConstraint": REGION},
        ObjectLockEnabledForBucket=locking,
    )
    if versioned or locking:
        s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    return name


def store(url: str, name: str = "primary", *, of: str | None = None, **words: Any) -> S3Store:
    """Return a store in the bucket `of`, or in a fresh versioned one."""
    return S3Store(
        name,
        bucket=of or bucket(url),
        region=REGION,
        path="/backups",
        client=client(url),
        **words,
    )


def address(of: S3Store, key: str) -> dict[str, str]:
    """Return bucket and key of an object, as a client's calls take them."""
    name, folder = of.location.removeprefix("s3://").split("/", 1)
    return {"Bucket": name, "Key": f"{folder}/{key}"}


def retrievals_take(url: str, looks: int) -> None:
    """Let every retrieval be over after so many looks at the object; 0 is at once."""
    order = {"progression": "manual", "times": looks} if looks else {"progression": "immediate"}
    body = json.dumps({"model_name": "s3::keyrestore", "transition": order})
    connection = HTTPConnection(urlsplit(url).netloc, timeout=10)
    try:
        connection.request("POST", "/moto-api/state-manager/set-transition", body)
        assert connection.getresponse().status < 300
    finally:
        connection.close()
