"""S3 and KMS of one region, from the wheel `moto`.

One process is one region, so stopping it loses the region with its objects and its keys.
Objects live in the server's memory, large ones in temporary files below its folder.
"""

from __future__ import annotations

import importlib.util
import secrets
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.sandbox.process import Account
from neuroca_backup.sandbox.readiness import missing_package, on_free_ports, wait_until_ready
from neuroca_backup.sandbox.server import Launch, new_password

_READY_SECONDS = 60
_PACKAGE = "moto[server]"
# Objects above this many bytes move from memory to a temporary file.
_IN_MEMORY_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class ObjectStoreServer:
    """One region: a bucket with versioning, and one KMS key."""

    kind: str
    region: str
    bucket: str
    stop_signal: int = signal.SIGTERM
    grace_seconds: float = 3
    account: Account | None = None

    def start(self, launch: Launch) -> Endpoint:
        """Start the region, and make its bucket and its key."""
        if importlib.util.find_spec("moto") is None or importlib.util.find_spec("flask") is None:
            raise missing_package("The S3 and KMS server", _PACKAGE)
        return on_free_ports(1, partial(self._run, launch))

    def _run(self, launch: Launch, ports: Sequence[int]) -> Endpoint:
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - slow

        (port,) = ports
        process = launch.spawn(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            env={"MOTO_S3_DEFAULT_KEY_BUFFER_SIZE": str(_IN_MEMORY_BYTES)},
        )
        user, password = f"AKIA{secrets.token_hex(8).upper()}", new_password()
        url = f"http://127.0.0.1:{port}"
        client = partial(_client, url=url, region=self.region, user=user, password=password)
        s3, kms = client("s3"), client("kms")

        def answers() -> bool:
            if not process.listens_on(port):
                return False
            try:
                s3.list_buckets()
            except (BotoCoreError, ClientError):
                return False
            return True

        wait_until_ready(
            answers,
            process=process,
            what=f"The S3 and KMS server of {self.region}",
            log=launch.log,
            seconds=_READY_SECONDS,
        )
        s3.create_bucket(
            Bucket=self.bucket, CreateBucketConfiguration={"LocationConstraint": self.region}
        )
        s3.put_bucket_versioning(Bucket=self.bucket, VersioningConfiguration={"Status": "Enabled"})
        key = kms.create_key(Description="Wraps the keysets of backups")["KeyMetadata"]
        return Endpoint(
            kind="aws",
            host="127.0.0.1",
            port=port,
            user=user,
            password=password,
            extra={
                "endpoint_url": url,
                "region_name": self.region,
                "bucket": self.bucket,
                "kms_key_arn": key["Arn"],
            },
        )


def _client(service: str, *, url: str, region: str, user: str, password: str) -> Any:
    import boto3  # noqa: PLC0415 - importing the sandbox must stay cheap
    from botocore.config import Config  # noqa: PLC0415 - as above

    # A session of its own: boto3's default session is not safe to use from several threads.
    session: Any = boto3.session.Session()  # type: ignore[no-untyped-call]  # no types
    return session.client(
        service,
        endpoint_url=url,
        region_name=region,
        aws_access_key_id=user,
        aws_secret_access_key=password,
        config=Config(  # type: ignore[no-untyped-call]  # as above
            proxies={},
            connect_timeout=5,
            read_timeout=20,
            retries={"total_max_attempts": 1},
            s3={"addressing_style": "path"},
        ),
    )
