"""Glacier: which objects can be read as they are, and asking for those that cannot.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/restoring-objects.html
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from neuroca_backup.model.retrieval import ARCHIVES
from neuroca_backup.stores import ObjectStat

if TYPE_CHECKING:
    from neuroca_backup.model.retrieval import RetrievalTier
    from neuroca_backup.stores.s3.objects import S3Object

_STANDARD = "STANDARD"
# The header of HeadObject: ongoing-request="false", expiry-date="Fri, 21 Dec 2012 00:00:00 GMT".
_ONGOING = re.compile(r'ongoing-request="(?P<ongoing>true|false)"')
_EXPIRY = re.compile(r'expiry-date="(?P<date>[^"]+)"')


def stat_of_head(key: str, answer: dict[str, Any]) -> ObjectStat:
    """Return what an answer of HeadObject says of `key`."""
    told = str(answer.get("Restore", ""))
    ongoing, expiry = _ONGOING.search(told), _EXPIRY.search(told)
    return _stat(
        key,
        size=answer["ContentLength"],
        modified=answer["LastModified"],
        storage_class=answer.get("StorageClass", _STANDARD),
        # Intelligent-Tiering keeps its class when it archives, and tells it only here.
        archived="ArchiveStatus" in answer,
        ongoing=None if ongoing is None else ongoing["ongoing"] == "true",
        until=None if expiry is None else parsedate_to_datetime(expiry["date"]),
    )


def stat_of_listing(key: str, item: dict[str, Any]) -> ObjectStat:
    """Return what an entry of a listing says of `key`."""
    status = item.get("RestoreStatus", {})
    return _stat(
        key,
        size=item["Size"],
        modified=item["LastModified"],
        storage_class=item.get("StorageClass", _STANDARD),
        archived=False,
        ongoing=status.get("IsRestoreInProgress"),
        until=status.get("RestoreExpiryDate"),
    )


def ask(target: S3Object, *, tier: RetrievalTier, days: int) -> None:
    """Ask for `target` with RestoreObject; that it is under way already is no error."""
    with target.translated():
        try:
            target.client.restore_object(
                **target.address,
                RestoreRequest={
                    "Days": days,
                    "GlacierJobParameters": {"Tier": tier.value.capitalize()},
                },
            )
        except ClientError as error:
            if error.response["Error"]["Code"] != "RestoreAlreadyInProgress":
                raise


def _stat(
    key: str,
    *,
    size: int,
    modified: datetime,
    storage_class: str,
    archived: bool,
    ongoing: bool | None,
    until: datetime | None,
) -> ObjectStat:
    """Return what is known; `ongoing` is None of an object whose retrieval nobody asked for."""
    in_archive = archived or storage_class in ARCHIVES
    back = ongoing is False and until is not None
    return ObjectStat(
        key=key,
        size=size,
        modified=modified.astimezone(UTC),
        storage_class=storage_class,
        readable=not in_archive or back,
        retrieving=in_archive and ongoing is True,
        readable_until=until.astimezone(UTC) if in_archive and back and until else None,
    )
