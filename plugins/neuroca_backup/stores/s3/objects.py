"""One S3 object: its address, and the requests that write it and remove it."""

from __future__ import annotations

import base64
import hashlib
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from neuroca_backup.errors import StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_DELETE_BATCH = 1_000
"""What one DeleteObjects call takes."""
SMALLEST_COLD = 128 * 1024
"""Smaller objects cost more in a cold class than in the standard one: S3 bills 128 KiB in
STANDARD_IA and GLACIER_IR, and 40 KiB more for each object in an archive.
https://aws.amazon.com/s3/pricing/"""
_ABORTS = 6
_ABORT_PAUSE_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class S3Object:
    """One key of one bucket, the client that reaches it, and how its errors are told.

    `label` is the object's name in messages; `translated` is a block that turns the SDK's errors
    into this project's. `version` is the one that is read, "" for the current one. What is written
    goes to `storage_class`, "" for the standard, if it is large enough.
    """

    client: Any
    bucket: str
    key: str
    label: str
    translated: Callable[[], AbstractContextManager[None]]
    version: str = ""
    storage_class: str = ""

    @property
    def address(self) -> dict[str, str]:
        """The arguments that every call about this object takes."""
        whole = {"Bucket": self.bucket, "Key": self.key}
        return {**whole, "VersionId": self.version} if self.version else whole

    def placed(self, size: int | None = None) -> dict[str, str]:
        """The argument that chooses the storage class of `size` bytes, None if they are many."""
        small = size is not None and size < SMALLEST_COLD
        return {} if small or not self.storage_class else {"StorageClass": self.storage_class}


def put_whole(target: S3Object, body: bytes | bytearray, **conditions: str) -> None:
    """Write `target` with one request; raises the SDK's own errors."""
    target.client.put_object(
        **target.address, **conditions, Body=body, ChecksumSHA256=_sha256_base64(body)
    )


def put_part(
    target: S3Object, body: bytes | bytearray, *, upload_id: str, number: int
) -> dict[str, Any]:
    """Send one part of an upload; return what CompleteMultipartUpload wants to know of it."""
    checksum = _sha256_base64(body)
    with target.translated():
        answer = target.client.upload_part(
            **target.address,
            UploadId=upload_id,
            PartNumber=number,
            Body=body,
            ChecksumAlgorithm="SHA256",
            ChecksumSHA256=checksum,
        )
    return {"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA256": checksum}


def delete_versions(target: S3Object, versions: Sequence[dict[str, str]]) -> None:
    """Remove `versions` of `target`, each given as `Key` and `VersionId`, in that order."""
    for first in range(0, len(versions), _DELETE_BATCH):
        batch = versions[first : first + _DELETE_BATCH]
        with target.translated():
            answer = target.client.delete_objects(
                Bucket=target.bucket, Delete={"Objects": batch, "Quiet": True}
            )
            for failed in answer.get("Errors", ()):
                # DeleteObjects answers 200 whatever became of the single versions.
                raise ClientError(  # type: ignore[no-untyped-call]  # botocore has no types
                    {"Error": failed}, "DeleteObjects"
                )


def abort(target: S3Object, upload_id: str) -> None:
    """Abort a multipart upload and look that it is gone, again and again for a few seconds.

    A part that is in flight while an upload is aborted may be stored after it, and is then paid
    for without being seen. https://docs.aws.amazon.com/AmazonS3/latest/API/API_AbortMultipartUpload.html

    Raises:
        StoreUnavailableError: The upload is still there.
    """
    client = target.client
    for attempt in range(_ABORTS):
        with target.translated():
            try:
                client.abort_multipart_upload(**target.address, UploadId=upload_id)
                client.list_parts(**target.address, UploadId=upload_id, MaxParts=1)
            except client.exceptions.NoSuchUpload:
                return
        time.sleep(_ABORT_PAUSE_SECONDS * 2**attempt)
    raise StoreUnavailableError(
        f"{target.label}: the unfinished upload {upload_id} is still there after {_ABORTS} aborts",
        remedy="It is swept by the next retention run.",
        key=target.key,
        upload_id=upload_id,
    )


def _sha256_base64(data: bytes | bytearray) -> str:
    """Return the SHA-256 of `data` the way S3's `ChecksumSHA256` wants it."""
    return base64.b64encode(hashlib.sha256(data).digest()).decode()
