"""A versioned bucket as it was at a moment: what came later, or was deleted later, does not show.

S3 keeps of every key its versions and delete markers, each with its time. Of several in the same
second the newest version counts, and a version before a delete marker.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/Versioning.html
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

from neuroca_backup.errors import NotFoundError, PermanentError
from neuroca_backup.stores.s3 import S3Store, archive

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from neuroca_backup.stores import ObjectStat, ObjectVersion, Store
    from neuroca_backup.stores.s3.objects import S3Object


class AsOf(S3Store):
    """The bucket as it was at `at` (aware); every method that would change it refuses.

    It needs `s3:ListBucketVersions` and `s3:GetObjectVersion`.
    """

    def __init__(
        self, name: str, *, bucket: str, region: str, path: str, client: Any, at: datetime
    ) -> None:
        if at.tzinfo is None:
            raise ValueError(f"as_of needs an aware datetime, got {at!r}")
        super().__init__(name, bucket=bucket, region=region, path=path, client=client)
        self._moment = at.astimezone(UTC)
        self.location = f"{self.location} as of {self._moment.isoformat(timespec='seconds')}"

    def list(self, prefix: str = "") -> Iterator[ObjectStat]:
        """Yield the objects that the folder `prefix` had then, one page at a time."""
        for key, history in groupby(self._entries(prefix), key=itemgetter("Key")):
            found = _standing(history, self._moment)
            if found is not None:
                yield archive.stat_of_listing(key.removeprefix(self._root), found)

    def folders(self, prefix: str = "") -> Iterator[str]:
        """Yield the folders within `prefix` that had an object then."""
        start = len(self._folder(prefix))
        names = sorted(
            {
                common["Prefix"][start:-1]
                for page in self._pages("list_object_versions", prefix, Delimiter="/")
                for common in page.get("CommonPrefixes", ())
            }
        )
        above = f"{prefix.rstrip('/')}/" if prefix else ""
        yield from (name for name in names if next(self.list(above + name), None) is not None)

    def as_of(self, at: datetime) -> Store:  # noqa: ARG002 - part of the contract
        """Refuse: it is a view already."""
        self._refuse()

    def writer(self, key: str) -> AbstractContextManager[BinaryIO]:  # noqa: ARG002 - as above
        """Refuse."""
        self._refuse()

    def put(self, key: str, data: bytes, *, create_only: bool = False) -> None:  # noqa: ARG002 - as above
        """Refuse."""
        self._refuse()

    def delete(self, key: str) -> None:  # noqa: ARG002 - as above
        """Refuse."""
        self._refuse()

    def copy_from(self, other: Store, key: str) -> bool:  # noqa: ARG002 - as above
        """Refuse."""
        self._refuse()

    def retain(self, key: str, *, until: datetime) -> None:  # noqa: ARG002 - as above
        """Refuse."""
        self._refuse()

    def hold(self, key: str, *, on: bool) -> None:  # noqa: ARG002 - as above
        """Refuse."""
        self._refuse()

    def delete_version(self, found: ObjectVersion) -> None:  # noqa: ARG002 - as above
        """Refuse."""
        self._refuse()

    def replace(self, key: str, data: bytes, *, expected: bytes) -> None:  # noqa: ARG002 - as above
        """Refuse."""
        self._refuse()

    def sweep_uploads(self, *, older_than: timedelta) -> int:  # noqa: ARG002 - as above
        """Refuse."""
        self._refuse()

    def _object(self, key: str) -> S3Object:
        found = _standing(self._history(key), self._moment)
        target = super()._object(key)
        if found is None:
            raise NotFoundError(
                f"{target.label}: there was no such object",
                remedy="Choose a later time, or look for it in another store.",
                store=self.name,
                key=key,
            )
        return self._at(key, version=found["VersionId"])

    def _entries(self, prefix: str) -> Iterator[dict[str, Any]]:
        """Yield versions and delete markers below `prefix`, those of a key side by side.

        The history of one key may go over the border of a page, where S3 begins with its markers.
        """
        held: list[dict[str, Any]] = []
        for page in self._pages("list_object_versions", prefix):
            entries = [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
            held = sorted([*held, *entries], key=itemgetter("Key"))
            last = held[-1]["Key"] if held else ""
            yield from (entry for entry in held if entry["Key"] != last)
            held = [entry for entry in held if entry["Key"] == last]
        yield from held

    def _refuse(self) -> NoReturn:
        raise PermanentError(
            f"{self.location} (store {self.name}) is a view of the past, which nobody can change",
            remedy="Leave out --as-of (as_of in the form) to work on the store as it is.",
            store=self.name,
        )


def _standing(history: Iterable[dict[str, Any]], at: datetime) -> dict[str, Any] | None:
    """Return the version of one key that stood at `at`; None where there was none."""
    # A delete marker has no size; of the first of equals `max` gives the first, the newest.
    then = (entry for entry in history if entry["LastModified"] <= at)
    found = max(then, key=lambda one: (one["LastModified"], "Size" in one), default=None)
    return found if found is not None and "Size" in found else None
