"""A store in memory: fast enough for thousands of histories, and able to die at any operation."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import BinaryIO

from neuroca_backup.errors import AlreadyExistsError, NotFoundError, StoreUnavailableError
from neuroca_backup.stores import ObjectStat, Store


class Killed(BaseException):
    """The process was killed."""


class MemoryStore:
    """Objects in a dict; `clock` dates them. `answers` is what a store that is down has not."""

    def __init__(self, name: str, clock: Callable[[], datetime]) -> None:
        self.name = name
        self.location = f"memory://{name}"
        self.objects: dict[str, tuple[bytes, datetime]] = {}
        self.answers = True
        self.operations = 0
        self.dies_after: Callable[[], bool] = lambda: False
        self.swept: list[timedelta] = []
        self._clock = clock

    def _begin(self) -> None:
        if not self.answers:
            raise StoreUnavailableError(f"{self.name} does not answer", remedy="Wait.")

    def _end(self) -> None:
        if self.dies_after():
            raise Killed

    @contextmanager
    def writer(self, key: str) -> Iterator[BinaryIO]:
        sink = io.BytesIO()
        yield sink
        self.put(key, sink.getvalue())

    def put(self, key: str, data: bytes, *, create_only: bool = False) -> None:
        self._begin()
        if create_only and key in self.objects:
            raise AlreadyExistsError(f"{key} exists", remedy="None.")
        self.objects[key] = (data, self._clock())
        self._end()

    @contextmanager
    def reader(self, key: str, *, start: int = 0, length: int | None = None) -> Iterator[BinaryIO]:
        data = self.get(key)[start:]
        yield io.BytesIO(data if length is None else data[:length])

    def get(self, key: str) -> bytes:
        self._begin()
        if key not in self.objects:
            raise NotFoundError(f"{self.name} has no {key}", remedy="None.")
        data = self.objects[key][0]
        self._end()
        return data

    def replace(self, key: str, data: bytes, *, expected: bytes) -> None:
        if self.get(key) != expected:
            raise StoreUnavailableError(f"{key} was changed", remedy="Look again.")
        self.put(key, data)

    def stat(self, key: str) -> ObjectStat:
        self._begin()
        if key not in self.objects:
            raise NotFoundError(f"{self.name} has no {key}", remedy="None.")
        data, modified = self.objects[key]
        self._end()
        return ObjectStat(key=key, size=len(data), modified=modified)

    def list(self, prefix: str = "") -> Iterator[ObjectStat]:
        self._begin()
        folder = f"{prefix}/" if prefix else ""
        for key in sorted(self.objects):
            if key.startswith(folder) and key in self.objects:
                data, modified = self.objects[key]
                yield ObjectStat(key=key, size=len(data), modified=modified)
        self._end()

    def folders(self, prefix: str = "") -> Iterator[str]:
        self._begin()
        folder = f"{prefix}/" if prefix else ""
        rest = (key.removeprefix(folder) for key in self.objects if key.startswith(folder))
        yield from sorted({one.partition("/")[0] for one in rest if "/" in one})
        self._end()

    def delete(self, key: str) -> None:
        self._begin()
        self.objects.pop(key, None)
        self._end()

    def copy_from(self, other: Store, key: str) -> bool:  # noqa: ARG002 - part of the contract
        return False

    def sweep_uploads(self, *, older_than: timedelta) -> int:
        self._begin()
        self.swept.append(older_than)
        return 0

    def check(self) -> None:
        self._begin()


class Death:
    """Kills after the operation of this number, counted over all stores that share it."""

    def __init__(self, after: int | None = None) -> None:
        self.after = after
        self.count = 0

    def __call__(self) -> bool:
        self.count += 1
        return self.after is not None and self.count > self.after
