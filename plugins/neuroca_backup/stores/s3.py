"""Objects in an S3 bucket, or in anything that speaks S3 the way AWS does."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlsplit

from botocore import exceptions as sdk

from neuroca_backup import multipart
from neuroca_backup.errors import (
    AccessDeniedError,
    AlreadyExistsError,
    BackupError,
    ConfigurationError,
    NotFoundError,
    PermanentError,
    StoreUnavailableError,
    UnreachableError,
)
from neuroca_backup.stores import ObjectStat, Store

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from neuroca_backup.model.endpoint import Connections
    from neuroca_backup.settings import S3StoreSettings

_DELETE_BATCH = 1_000
"""What one DeleteObjects call takes."""
_CONFLICTS = 5
_CONFLICT_PAUSE_SECONDS = 0.1
_COPY_PART = 256 * multipart.MIB
"""CopyObject ends at 5 GB; parts of this size also keep each call well below its read timeout."""
_PERMISSIONS = (
    "s3:ListBucket, s3:ListBucketVersions, s3:ListBucketMultipartUploads, s3:GetObject, "
    "s3:PutObject, s3:DeleteObject, s3:DeleteObjectVersion, s3:AbortMultipartUpload and "
    "s3:ListMultipartUploadParts"
)
_PERMISSION_OF = {
    "HeadBucket": "s3:ListBucket",
    "ListObjectsV2": "s3:ListBucket",
    "ListObjectVersions": "s3:ListBucketVersions",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads",
    "ListParts": "s3:ListMultipartUploadParts",
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "HeadObject": "s3:GetObject (and s3:ListBucket, without which a missing object is denied)",
    "GetObject": "s3:GetObject (and s3:ListBucket, without which a missing object is denied)",
    "DeleteObjects": "s3:DeleteObject and s3:DeleteObjectVersion, and no lock on the object",
}
_NO_CREDENTIALS = (
    sdk.NoCredentialsError,
    sdk.PartialCredentialsError,
    sdk.CredentialRetrievalError,
    sdk.TokenRetrievalError,
    sdk.NoAuthTokenError,
)


class S3Store:
    """Objects under `s3://<bucket>/<path>`, reached through a boto3 client the caller made.

    Encryption at rest and storage class are the bucket's own business.
    """

    def __init__(self, name: str, *, bucket: str, region: str, path: str = "", client: Any) -> None:
        self.name = name
        folder = "/".join(part for part in path.split("/") if part)
        self.location = f"s3://{bucket}/{folder}" if folder else f"s3://{bucket}"
        self._bucket = bucket
        self._region = region
        self._root = f"{folder}/" if folder else ""
        self._client = client

    @classmethod
    def from_settings(
        cls, name: str, settings: S3StoreSettings, connections: Connections
    ) -> S3Store:
        """Return the store that `settings` describe; nothing is asked of it yet."""
        client = connections.aws_client(
            "s3", region=settings.region, connection_id=settings.connection
        )
        return cls(
            name,
            bucket=settings.bucket,
            region=settings.region,
            path=settings.path,
            client=client,
        )

    def __repr__(self) -> str:
        return f"S3Store(name={self.name!r}, location={self.location!r})"

    def writer(self, key: str) -> AbstractContextManager[BinaryIO]:
        """Open `key` for a stream, sent in parts; see `multipart.writing` for the memory."""
        return multipart.writing(self._object(key))

    def put(self, key: str, data: bytes, *, create_only: bool = False) -> None:
        """Write a small object with one request, conditional on `create_only`."""
        target = self._object(key)
        if not create_only:
            with target.translated():
                multipart.put_whole(target, data)
            return
        for attempt in range(_CONFLICTS):
            if self._create(key, data):
                return
            # Whether the other write won shows when it is over.
            time.sleep(_CONFLICT_PAUSE_SECONDS * 2**attempt)
        if self._exists(key):
            raise self._taken(target)
        raise StoreUnavailableError(
            f"{target.label}: {_CONFLICTS} conditional writes met another one under way",
            remedy="It is tried again.",
            store=self.name,
            key=key,
        )

    def reader(
        self, key: str, *, start: int = 0, length: int | None = None
    ) -> AbstractContextManager[BinaryIO]:
        """Open `key` from byte `start`; a broken transfer is resumed a bounded number of times."""
        return multipart.reading(self._object(key), start=start, length=length)

    def get(self, key: str) -> bytes:
        """Return a small object's bytes."""
        with self.reader(key) as stream:
            return stream.read()

    def stat(self, key: str) -> ObjectStat:
        """Return what HeadObject says."""
        target = self._object(key)
        with target.translated():
            answer = self._client.head_object(**target.address)
        return ObjectStat(
            key=key,
            size=answer["ContentLength"],
            modified=answer["LastModified"].astimezone(UTC),
            storage_class=answer.get("StorageClass", "STANDARD"),
        )

    def list(self, prefix: str = "") -> Iterator[ObjectStat]:
        """Yield the objects of the folder `prefix`, one page of 1,000 at a time."""
        for page in self._pages("list_objects_v2", prefix):
            for item in page.get("Contents", ()):
                yield ObjectStat(
                    key=item["Key"].removeprefix(self._root),
                    size=item["Size"],
                    modified=item["LastModified"].astimezone(UTC),
                    storage_class=item.get("StorageClass", "STANDARD"),
                )

    def folders(self, prefix: str = "") -> Iterator[str]:
        """Yield the folders directly within `prefix`."""
        start = len(self._folder(prefix))
        # S3 orders `a-b/` before `a/`: the names have to be sorted without the slash.
        yield from sorted(
            common["Prefix"][start:-1]
            for page in self._pages("list_objects_v2", prefix, Delimiter="/")
            for common in page.get("CommonPrefixes", ())
        )

    def delete(self, key: str) -> None:
        """Remove every version and delete marker of exactly `key`, the current one last.

        In that order no older version comes to light, whenever this is interrupted.
        """
        target = self._object(key)
        latest: list[dict[str, str]] = []
        older: list[dict[str, str]] = []
        for page in self._pages("list_object_versions", key, exact=True):
            entries = [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
            for entry in entries:
                if entry["Key"] == target.key:
                    version = {"Key": target.key, "VersionId": entry["VersionId"]}
                    (latest if entry["IsLatest"] else older).append(version)
            if any(entry["Key"] != target.key for entry in entries):
                break  # Keys come in order: the rest are longer keys.
        for first in range(0, len(older), _DELETE_BATCH):
            self._delete_versions(target, older[first : first + _DELETE_BATCH])
        if latest:
            self._delete_versions(target, latest)

    def copy_from(self, other: Store, key: str) -> bool:
        """Copy within the service where endpoint and credentials are the same ones."""
        if not isinstance(other, S3Store) or not self._same_account(other):
            return False
        from boto3.s3.transfer import TransferConfig  # noqa: PLC0415 - 50 ms that few calls need

        other.stat(key)  # What is missing there is told with the other store's name.
        target = self._object(key)
        with target.translated():
            self._client.copy(
                other._object(key).address,  # noqa: SLF001 - of our own class
                target.bucket,
                target.key,
                SourceClient=other._client,  # noqa: SLF001 - as above
                ExtraArgs={"ChecksumAlgorithm": "SHA256"},
                Config=TransferConfig(  # type: ignore[no-untyped-call]  # boto3 has no types
                    multipart_threshold=_COPY_PART, multipart_chunksize=_COPY_PART
                ),
            )
        return True

    def sweep_uploads(self, *, older_than: timedelta) -> int:
        """Abort the multipart uploads below our path that were initiated that long ago."""
        cutoff = datetime.now(UTC) - older_than
        swept = 0
        for page in self._pages("list_multipart_uploads", ""):
            for upload in page.get("Uploads", ()):
                if upload["Initiated"] < cutoff:
                    target = self._at(upload["Key"].removeprefix(self._root))
                    multipart.abort(target, upload["UploadId"])
                    swept += 1
        return swept

    def check(self) -> None:
        """Raise unless the bucket exists, is in its region, and may be listed."""
        with self._translated(""):
            answer = self._client.head_bucket(Bucket=self._bucket)
            self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._root, MaxKeys=1)
        region = answer.get("BucketRegion") or self._region
        if region != self._region:
            raise ConfigurationError(
                f"Bucket {self._bucket} is in {region}, not in {self._region}",
                remedy=f"Set storage.{self.name}.region to {region}, or use another bucket: the "
                "copies must be in the regions the settings say.",
                store=self.name,
            )

    def _object(self, key: str) -> multipart.S3Object:
        # SDK and proxies resolve dots in a URL, so such keys reach another object than they name.
        if not key.isprintable() or any(part in {"", ".", ".."} for part in key.split("/")):
            raise PermanentError(
                f"{key!r} is not a key of store {self.name}",
                remedy="Keys are printable, relative and without empty or dot parts.",
                key=key,
            )
        return self._at(key)

    def _at(self, key: str) -> multipart.S3Object:
        return multipart.S3Object(
            client=self._client,
            bucket=self._bucket,
            key=self._root + key,
            label=f"{self.location}/{key} (store {self.name})",
            translated=lambda: self._translated(key),
        )

    def _folder(self, prefix: str) -> str:
        return self._object(prefix.rstrip("/")).key + "/" if prefix else self._root

    def _pages(
        self, operation: str, prefix: str, *, exact: bool = False, **arguments: Any
    ) -> Iterator[dict[str, Any]]:
        start = self._object(prefix).key if exact else self._folder(prefix)
        pages = iter(
            self._client.get_paginator(operation).paginate(
                Bucket=self._bucket, Prefix=start, **arguments
            )
        )
        while True:
            # Only the request is guarded: the caller's own errors are not the store's.
            with self._translated(prefix):
                page = next(pages, None)
            if page is None:
                return
            yield page

    def _delete_versions(
        self, target: multipart.S3Object, versions: Sequence[dict[str, str]]
    ) -> None:
        with target.translated():
            answer = self._client.delete_objects(
                Bucket=self._bucket, Delete={"Objects": versions, "Quiet": True}
            )
            for failed in answer.get("Errors", ()):
                # DeleteObjects answers 200 whatever became of the single versions.
                raise sdk.ClientError(  # type: ignore[no-untyped-call]  # botocore has no types
                    {"Error": failed}, "DeleteObjects"
                )

    def _create(self, key: str, data: bytes) -> bool:
        """Write `key` if it is not there; return False where another such write is under way."""
        target = self._object(key)
        with target.translated():
            try:
                multipart.put_whole(target, data, IfNoneMatch="*")
            except sdk.ClientError as error:
                code = error.response["Error"]["Code"]
                if code == "ConditionalRequestConflict":
                    return False
                if code not in {"PreconditionFailed", "412"}:
                    raise
                # A first try of the SDK may have won and only its answer been lost.
                retried = error.response["ResponseMetadata"].get("RetryAttempts", 0)
                if not retried or self.get(key) != data:
                    raise self._taken(target) from None
        return True

    def _taken(self, target: multipart.S3Object) -> AlreadyExistsError:
        return AlreadyExistsError(
            f"{target.label} exists already",
            remedy="Another attempt at the same work was first; use what it wrote.",
            store=self.name,
            key=target.key,
        )

    def _exists(self, key: str) -> bool:
        try:
            self.stat(key)
        except NotFoundError:
            return False
        return True

    def _same_account(self, other: S3Store) -> bool:
        return _service(self._client) == _service(other._client) and _credentials(
            self._client
        ) == _credentials(other._client)

    @contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        try:
            yield
        except (sdk.ClientError, sdk.BotoCoreError) as error:
            where = f"{self.location}/{key}" if key else self.location
            facts = {"store": self.name, "key": key}
            if isinstance(error, sdk.ClientError):
                raise _refusal(error, f"{where} (store {self.name})", facts) from error
            address = urlsplit(self._client.meta.endpoint_url).netloc.rpartition("@")[2]
            raise _failure(error, f"{where} (store {self.name}, {address})", facts) from error


# What a code means: the error, the problem, the remedy.
# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
_NO_BUCKET = (
    NotFoundError,
    "the bucket does not exist",
    "Create it, or correct its name under `storage` in backup.yaml.",
)
_NO_OBJECT = (NotFoundError, "there is no such object", "Look for it in another store.")
_DENIED = (
    AccessDeniedError,
    "access is denied",
    f"A store needs {_PERMISSIONS}, and the use of the bucket's KMS key if it has one.",
)
_RENEW = "Renew the credentials of the store's connection."
_EXPIRED = (AccessDeniedError, "the session token has expired", _RENEW)
_FAULT = (StoreUnavailableError, "the service is overloaded or at fault", "It is tried again.")
_ELSEWHERE = (
    ConfigurationError,
    "the bucket is in another region",
    "Correct `region` under `storage` in backup.yaml.",
)
_MEANING: dict[str, tuple[type[BackupError], str, str]] = {
    "NoSuchBucket": _NO_BUCKET,
    "NoSuchKey": _NO_OBJECT,
    "NoSuchVersion": _NO_OBJECT,
    "NotFound": _NO_OBJECT,
    "404": _NO_OBJECT,
    "AccessDenied": _DENIED,
    "AllAccessDisabled": _DENIED,
    "Forbidden": _DENIED,
    "403": _DENIED,
    "ExpiredToken": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "InvalidToken": (AccessDeniedError, "the session token is not valid", _RENEW),
    "InvalidAccessKeyId": (AccessDeniedError, "the access key is unknown", _RENEW),
    "SignatureDoesNotMatch": (
        AccessDeniedError,
        "the secret key does not belong to the access key",
        _RENEW,
    ),
    "RequestTimeTooSkewed": (
        PermanentError,
        "the clocks of this machine and of the service differ by more than 15 minutes",
        "Set this machine's clock (NTP).",
    ),
    "InvalidObjectState": (
        PermanentError,
        "the object is archived in Glacier and cannot be read as it is",
        "Restore it from Glacier first (`aws s3api restore-object`), then try again.",
    ),
    "NoSuchUpload": (
        StoreUnavailableError,
        "the upload was removed while it was under way",
        "It is tried again; sweep only uploads older than the longest backup.",
    ),
    "PermanentRedirect": _ELSEWHERE,
    "AuthorizationHeaderMalformed": _ELSEWHERE,
    "301": _ELSEWHERE,
    **dict.fromkeys(
        (
            "SlowDown",
            "Throttling",
            "ThrottlingException",
            "RequestLimitExceeded",
            "InternalError",
            "ServiceUnavailable",
            "RequestTimeout",
            "OperationAborted",
            "BadDigest",
            "XAmzContentSHA256Mismatch",
        ),
        _FAULT,
    ),
}


def _refusal(error: sdk.ClientError, where: str, facts: dict[str, str]) -> BackupError:
    """Return what an answer of the service means."""
    answer = error.response.get("Error", {})
    code = str(answer.get("Code", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    action = error.operation_name
    unknown = (
        PermanentError,
        f"refused: {answer.get('Message', 'no reason given')}",
        "Mend what the service complains about.",
    )
    kind, problem, remedy = _MEANING.get(
        code, _FAULT if status >= 500 or status == 429 else unknown
    )
    if action == "HeadBucket" and kind is NotFoundError:
        kind, problem, remedy = _NO_BUCKET
    if remedy == _DENIED[2]:
        problem = f"{problem}; {action} needs {_PERMISSION_OF.get(action, 's3:PutObject')}"
    return kind(f"{where}: {problem} ({code})", remedy=remedy, **facts, code=code, action=action)


def _failure(error: sdk.BotoCoreError, where: str, facts: dict[str, str]) -> BackupError:
    """Return what it means that there was no answer, or half of one."""
    kind = type(error).__name__
    if isinstance(error, _NO_CREDENTIALS):
        return AccessDeniedError(
            f"{where}: there are no usable credentials ({kind})",
            remedy="Set `connection` of the store, or what the AWS SDK's own chain looks for.",
            **facts,
        )
    if isinstance(error, sdk.SSLError):
        return UnreachableError(
            f"{where}: no TLS connection ({kind})",
            remedy="Look at the certificate, and at the proxy if there is one.",
            **facts,
        )
    if isinstance(error, sdk.ConnectionError):
        return UnreachableError(
            f"{where}: the endpoint did not answer ({kind})",
            remedy="Look at the network, the region and the endpoint of the connection.",
            **facts,
        )
    if isinstance(error, (sdk.HTTPClientError, sdk.IncompleteReadError)):
        return StoreUnavailableError(
            f"{where}: the transfer was cut short ({kind})", remedy="It is tried again.", **facts
        )
    return PermanentError(
        f"{where}: the AWS SDK refused the call ({kind})",
        remedy="Look at the region, the bucket's name and the connection of this store.",
        **facts,
    )


def _service(client: Any) -> str:
    """Return what names the service: all regions of AWS are one, an emulator is its address."""
    address = urlsplit(client.meta.endpoint_url)
    host = (address.hostname or "").lower()
    for partition in (".amazonaws.com", ".amazonaws.com.cn"):
        if host.endswith(partition):
            return partition
    return f"{address.scheme}://{host}:{address.port}"


def _credentials(client: Any) -> object:
    # The SDK has no public way to ask a client who it is without a call to STS.
    credentials = client._get_credentials()  # noqa: SLF001
    return credentials and credentials.get_frozen_credentials()


STORE = S3Store
