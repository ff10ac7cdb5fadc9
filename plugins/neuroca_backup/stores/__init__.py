"""Stores: places for objects. One module or package each, one contract, tested on every one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import BinaryIO, Protocol, runtime_checkable

from neuroca_backup.errors import PermanentError


@dataclass(frozen=True, slots=True)
class ObjectStat:
    """What a store says of one object.

    `key` is relative to the store's path, `size` is in bytes, `modified` is aware and in UTC,
    `storage_class` is "" where the store has none. What is `archived` cannot be read before the
    archive was asked for it; of an object that it has given back for some days, only `Store.stat`
    knows so, a listing does not.
    """

    key: str
    size: int
    modified: datetime
    storage_class: str = ""
    archived: bool = False


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
