"""Stores: places for objects. One module or package each, one contract, tested on every one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import BinaryIO, Protocol, runtime_checkable

from neuroca_backup.errors import PermanentError, StoreUnavailableError
from neuroca_backup.model.retrieval import RetrievalTier


@dataclass(frozen=True, slots=True)
class ObjectStat:
    """What a store says of one object.

    `key` is relative to the store's path, `size` is in bytes, `modified` is aware and in UTC,
    `storage_class` is the service's own word, "" where the store has none.

    `readable` is False of an object in an archive that has to be retrieved before it can be read;
    `retrieving` says that this was asked for and is under way, `readable_until` until when (aware)
    a retrieved copy stays. What `list` says of an object in an archive may lag behind: ask `stat`
    before believing that it is not readable.
    """

    key: str
    size: int
    modified: datetime
    storage_class: str = ""
    readable: bool = True
    retrieving: bool = False
    readable_until: datetime | None = None


class Store(Protocol):
    """A place for objects under `<bucket>/<path>`; keys are relative to that path.

    Every method raises `NotFoundError`, `AccessDeniedError` or `StoreUnavailableError`, naming
    the store and the key, and what reads bytes `ArchivedError`; none ever returns less than was
    asked for without raising.
    """

    name: str
    location: str

    def writer(self, key: str) -> AbstractContextManager[BinaryIO]:
        """Open `key` for writing a stream of any length; memory stays flat.

        The object appears, whole, when the block ends; when the block raises nothing appears and
        parts already sent are removed. An existing object is replaced.
        """
        ...

    def put(self, key: str, data: bytes, *, create_only: bool = False) -> None:
        """Write a small object at once.

        Raises:
            AlreadyExistsError: `create_only` was asked for and the key exists; of any number of
                simultaneous callers exactly one does not get this.
        """
        ...

    def reader(
        self, key: str, *, start: int = 0, length: int | None = None
    ) -> AbstractContextManager[BinaryIO]:
        """Open `key` for reading, wholly or a range; a short read raises `StoreUnavailableError`.

        Reading past the end of the object gives what there is up to the end.
        """
        ...

    def get(self, key: str) -> bytes:
        """Return a small object's bytes."""
        ...

    def stat(self, key: str) -> ObjectStat:
        """Return what the store knows of `key`, also where its bytes are archived."""
        ...

    def list(self, prefix: str = "") -> Iterator[ObjectStat]:
        """Yield every object whose key starts with the folder `prefix`, in the order of keys.

        `prefix` ends at a folder's border: `database/postgres` never lists `database/postgres2`.
        """
        ...

    def folders(self, prefix: str = "") -> Iterator[str]:
        """Yield the names of the folders directly within the folder `prefix`, sorted."""
        ...

    def delete(self, key: str) -> None:
        """Remove `key` with all its versions; removing what is not there is not an error."""
        ...

    def copy_from(self, other: Store, key: str) -> bool:
        """Copy `key` from `other` within the service, without the bytes passing through here.

        Returns False, having done nothing, where the two ends do not allow it.
        """
        ...

    def sweep_uploads(self, *, older_than: timedelta) -> int:
        """Abort unfinished uploads that started before `older_than` ago; return how many."""
        ...

    def check(self) -> None:
        """Raise unless the bucket or directory is there and may be listed."""
        ...


@runtime_checkable
class Locking(Protocol):
    """What a store can do that refuses to delete some objects before their time."""

    def locked_until(self, key: str) -> datetime | None:
        """Return until when (aware) the store itself refuses to delete `key`; None if it does not.

        A lock without an end is one until the last moment that there is.
        """
        ...


@dataclass(frozen=True, slots=True)
class ObjectVersion:
    """One version of an object; `current` is the one that reading gives."""

    key: str
    version: str
    current: bool


@runtime_checkable
class Versioning(Protocol):
    """What a store can do that may keep what was overwritten or deleted."""

    def versions(self, prefix: str) -> Iterator[ObjectVersion]:
        """Yield every version of every object in the folder `prefix`, of deleted ones, too."""
        ...

    def delete_version(self, found: ObjectVersion) -> None:
        """Remove this version for good; the others stay."""
        ...


@runtime_checkable
class Replacing(Protocol):
    """What a store can do where two may change the same small object at once."""

    def replace(self, key: str, data: bytes, *, expected: bytes) -> None:
        """Write `data` in the place of `expected`, which must still be what `key` holds.

        Raises:
            StoreUnavailableError: Somebody has changed it: look again.
        """
        ...


@runtime_checkable
class Immutable(Store, Locking, Protocol):
    """What a store can do that may be told to refuse deletions.

    `lock_margin` is how long after a backup's retention it stays locked; None where backup.yaml
    sets no lock for the store.
    """

    lock_margin: timedelta | None

    def locks(self) -> bool:
        """Return whether any object here may be locked, by whomever."""
        ...

    def retain(self, key: str, *, until: datetime) -> None:
        """Refuse to delete `key` before `until` (aware); a lock that is longer stays.

        Raises:
            ConfigurationError: backup.yaml sets no lock for this store.
        """
        ...

    def hold(self, key: str, *, on: bool) -> None:
        """Refuse to delete `key` until this is called again with `on` False."""
        ...


@runtime_checkable
class Archiving(Protocol):
    """What a store can do whose objects may lie in an archive, not readable at once."""

    def retrieve(self, key: str, *, tier: RetrievalTier, days: int) -> ObjectStat:
        """Ask that `key` be made readable for `days` days, and return what `stat` says then.

        Does nothing to an object that is readable or being retrieved, so it may be repeated.

        Raises:
            PermanentError: The archive does not have this tier.
            StoreUnavailableError: The service has no capacity for the tier now.
        """
        ...


@runtime_checkable
class Versioned(Protocol):
    """What a store can do that keeps what was overwritten and deleted."""

    def as_of(self, at: datetime) -> Store:
        """Return a view of this store as it was at `at` (aware), which refuses to change anything.

        Each key is what it was then: what was written, overwritten or deleted later does not show.

        Raises:
            ConfigurationError: The store keeps no versions, so that nobody can tell.
        """
        ...


def changed(label: str, *, store: str, key: str) -> StoreUnavailableError:
    """Return the error of `replace` where the object `label` is not what was expected."""
    return StoreUnavailableError(
        f"{label} was changed by somebody else meanwhile",
        remedy="It is tried again with what it holds now.",
        store=store,
        key=key,
    )


def check_key(key: str, *, store: str, reserved: tuple[str, ...] = ()) -> None:
    """Refuse what is not a key: printable, relative, without empty, `.` or `..` parts.

    No part may begin with one of `reserved`, the names that the store named `store` keeps for
    itself.

    Raises:
        PermanentError: `key` is not one.
    """
    if not key.isprintable() or any(
        part in {"", ".", ".."} or part.startswith(reserved) for part in key.split("/")
    ):
        raise PermanentError(
            f"{key!r} is not a key of store {store}",
            remedy="Keys are printable, relative and without empty or dot parts.",
            key=key,
        )
