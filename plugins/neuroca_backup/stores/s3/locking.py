"""Object Lock: having S3 itself refuse to delete versions before their time.

A retention period is only ever made longer here, and a mode only stricter.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock.html
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from neuroca_backup.errors import ConfigurationError

if TYPE_CHECKING:
    from neuroca_backup.stores.s3.objects import S3Object

COMPLIANCE = "COMPLIANCE"
_NOT_CONFIGURED = "ObjectLockConfigurationNotFoundError"


def until_of(answer: dict[str, Any]) -> datetime | None:
    """Return until when (aware) the object of an answer of HeadObject is locked; None if not."""
    if answer.get("ObjectLockLegalHoldStatus") == "ON":
        return datetime.max.replace(tzinfo=UTC)
    until: datetime | None = answer.get("ObjectLockRetainUntilDate")
    return None if until is None else until.astimezone(UTC)


def retain(target: S3Object, *, until: datetime, mode: str) -> None:
    """Lock the current version of `target` until `until` (aware), unless it is so already."""
    # S3 keeps whole seconds in some of its answers.
    wanted = until.astimezone(UTC).replace(microsecond=0) + timedelta(seconds=1)
    with target.translated():
        answer = target.client.head_object(**target.address)
        found = answer.get("ObjectLockRetainUntilDate")
        stands = found is not None and found.astimezone(UTC) >= until
        if stands and answer.get("ObjectLockMode") in {mode, COMPLIANCE}:
            return
        stricter = COMPLIANCE if COMPLIANCE in {mode, answer.get("ObjectLockMode")} else mode
        target.client.put_object_retention(
            **_version(target, answer),
            Retention={
                "Mode": stricter,
                "RetainUntilDate": max(wanted, found.astimezone(UTC)) if found else wanted,
            },
        )


def hold(target: S3Object, *, on: bool) -> None:
    """Put a legal hold on the current version of `target`, or end it."""
    with target.translated():
        answer = target.client.head_object(**target.address)
        if (answer.get("ObjectLockLegalHoldStatus") == "ON") != on:
            target.client.put_object_legal_hold(
                **_version(target, answer), LegalHold={"Status": "ON" if on else "OFF"}
            )


def configuration(client: Any, bucket: str) -> dict[str, Any] | None:
    """Return the bucket's Object Lock configuration, None where it has none; SDK errors pass."""
    try:
        answer = client.get_object_lock_configuration(Bucket=bucket)
    except ClientError as error:
        if error.response["Error"]["Code"] == _NOT_CONFIGURED:
            return None
        raise
    found: dict[str, Any] = answer["ObjectLockConfiguration"]
    return found if found.get("ObjectLockEnabled") == "Enabled" else None


def require(found: dict[str, Any] | None, *, bucket: str, store: str) -> None:
    """Raise `ConfigurationError` unless objects of `bucket` can be locked one by one."""
    if found is None:
        raise ConfigurationError(
            f"storage.{store}.lock is set, and the bucket {bucket} has no Object Lock",
            remedy="Switch it on: `aws s3api put-bucket-versioning` with Status=Enabled, then "
            f"`aws s3api put-object-lock-configuration --bucket {bucket} "
            "--object-lock-configuration ObjectLockEnabled=Enabled`. Or leave the lock out.",
            store=store,
        )
    if found.get("Rule"):
        raise ConfigurationError(
            f"The bucket {bucket} (store {store}) locks by default whatever is written to it, so "
            "that results of checks and marks of expiry could never be removed",
            remedy="Take the rule out of its Object Lock configuration; storage."
            f"{store}.lock locks what must stay.",
            store=store,
        )


def _version(target: S3Object, answer: dict[str, Any]) -> dict[str, str]:
    """Return the address of the version that was looked at, whatever was written since."""
    version = answer.get("VersionId")
    return {**target.address, "VersionId": version} if version else target.address
