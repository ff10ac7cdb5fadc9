"""Objects in an S3 bucket, or in anything that speaks S3 the way AWS does."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlsplit

from botocore.exceptions import ClientError

from neuroca_backup.errors import (
    AlreadyExistsError,
    ConfigurationError,
    NotFoundError,
    StoreUnavailableError,
)
from neuroca_backup.stores import ObjectStat, Store, check_key
from neuroca_backup.stores.s3 import streams
from neuroca_backup.stores.s3.errors import translated
from neuroca_backup.stores.s3.objects import S3Object, abort, delete_versions, put_whole

if TYPE_CHECKING:
    from collections.abc import Iterator

    from neuroca_backup.model.endpoint import Connections
    from neuroca_backup.settings import S3StoreSettings

_CONFLICTS = 5
_CONFLICT_PAUSE_SECONDS = 0.1
# Glacier Instant Retrieval (GLACIER_IR) is read like any other class.
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-class-intro.html
_ARCHIVES = {"GLACIER", "DEEP_ARCHIVE"}
_COPY_PART = 256 * streams.MIB
"""CopyObject ends at 5 GB; parts of this size also keep each call well below its read timeout."""


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
        """Open `key` for a stream, sent in parts; see `streams.writing` for the memory."""
        return streams.writing(self._object(key))

    def put(self, key: str, data: bytes, *, create_only: bool = False) -> None:
        """Write a small object with one request, conditional on `create_only`."""
        target = self._object(key)
        if not create_only:
            with target.translated():
                put_whole(target, data)
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
        return streams.reading(self._object(key), start=start, length=length)

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
            archived=_archived(answer),
        )

    def locked_until(self, key: str) -> datetime | None:
        """Return until when Object Lock keeps `key`; a legal hold keeps it for ever.

        S3 tells this only to who may read it (`s3:GetObjectRetention`, `s3:GetObjectLegalHold`);
        where it does not tell, deleting a locked object fails instead.
        """
        target = self._object(key)
        with target.translated():
            answer = self._client.head_object(**target.address)
        if answer.get("ObjectLockLegalHoldStatus") == "ON":
            return datetime.max.replace(tzinfo=UTC)
        until: datetime | None = answer.get("ObjectLockRetainUntilDate")
        return None if until is None else until.astimezone(UTC)

    def list(self, prefix: str = "") -> Iterator[ObjectStat]:
        """Yield the objects of the folder `prefix`, one page of 1,000 at a time."""
        for page in self._pages("list_objects_v2", prefix):
            for item in page.get("Contents", ()):
                yield ObjectStat(
                    key=item["Key"].removeprefix(self._root),
                    size=item["Size"],
                    modified=item["LastModified"].astimezone(UTC),
                    storage_class=item.get("StorageClass", "STANDARD"),
                    archived=_archived(item),
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
        delete_versions(target, older)
        delete_versions(target, latest)

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
                    abort(target, upload["UploadId"])
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

    def _object(self, key: str) -> S3Object:
        # SDK and proxies resolve dots in a URL, so such keys reach another object than they name.
        check_key(key, store=self.name)
        return self._at(key)

    def _at(self, key: str) -> S3Object:
        return S3Object(
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

    def _create(self, key: str, data: bytes) -> bool:
        """Write `key` if it is not there; return False where another such write is under way."""
        target = self._object(key)
        with target.translated():
            try:
                put_whole(target, data, IfNoneMatch="*")
            except ClientError as error:
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

    def _taken(self, target: S3Object) -> AlreadyExistsError:
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

    def _translated(self, key: str) -> AbstractContextManager[None]:
        place = f"{self.location}/{key}" if key else self.location
        return translated(place, store=self.name, key=key, endpoint=self._client.meta.endpoint_url)


def _archived(answer: dict[str, Any]) -> bool:
    """Return whether the bytes of an object have to be asked for hours before they are read.

    Intelligent-Tiering moves objects into archives of its own, which `ArchiveStatus` tells. A copy
    that was given back for some days has a `Restore` with `ongoing-request="false"`.
    https://docs.aws.amazon.com/AmazonS3/latest/API/API_HeadObject.html
    """
    asleep = answer.get("StorageClass") in _ARCHIVES or bool(answer.get("ArchiveStatus"))
    return asleep and 'ongoing-request="false"' not in answer.get("Restore", "")


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
