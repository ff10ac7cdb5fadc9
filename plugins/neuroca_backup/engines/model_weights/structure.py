"""Whether the files of a model are whole by their own structure, and all its shards are there."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from neuroca_backup.engines.model_weights import formats
from neuroca_backup.engines.model_weights.sequential import TornError
from neuroca_backup.errors import TransientError
from neuroca_backup.trees.entries import Entry, Kind, shown
from neuroca_backup.trees.walking import Found, readable

_State = tuple[int, int, int, int]


class Shards:
    """Which shards the lists of a model name, and which there are."""

    def __init__(self) -> None:
        self._there: set[str] = set()
        self._named: dict[str, str] = {}

    def add(self, path: str) -> None:
        """Note that there is a file, or a link to one."""
        if formats.known(path):
            self._there.add(path)

    def expect(self, index: str, names: frozenset[str]) -> None:
        """Note that the list `index` names files beside it."""
        folder = posixpath.dirname(index)
        for name in names:
            self._named.setdefault(posixpath.join(folder, name), index)

    def missing(self) -> tuple[str, str] | None:
        """Return a shard that is not there and the list that names it, or None."""
        return next(
            ((path, self._named[path]) for path in sorted(self._named.keys() - self._there)), None
        )


def alias(entry: Entry) -> str | None:
    """Return the path of the file to which a link gives the name of a known format, or None.

    Hugging Face's cache keeps files under their digests, and links with their names beside them.
    """
    if entry.kind is not Kind.SYMLINK or not formats.known(entry.path):
        return None
    if entry.target.startswith("/"):
        return None
    path = posixpath.normpath(posixpath.join(posixpath.dirname(entry.path), entry.target))
    return None if path.split("/", 1)[0] in {"..", "."} else path


class Structures:
    """Checks the files of known formats while a dump is made; `roots` are those of the models."""

    def __init__(self, roots: Mapping[str, Path]) -> None:
        self._roots = roots
        self._checked: dict[str, _State] = {}
        self._shards = Shards()
        self._links: dict[str, str] = {}

    def check(self, found: Found) -> None:
        """Check a file that is about to be read.

        Raises:
            TransientError: It is torn: names it and what is wrong.
        """
        if not formats.known(found.path):
            return
        with _opened(found) as stream:
            status = os.fstat(stream.fileno())
            self._check(found.path, stream, status.st_size)
        self._checked[found.path] = (
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
            status.st_ino,
        )

    def add(self, entry: Entry) -> None:
        """Note an entry of the dump, which has to be what was checked.

        Raises:
            TransientError: The file has changed between its check and its reading.
        """
        if entry.kind is not Kind.DIRECTORY:
            self._shards.add(entry.path)
        target = alias(entry)
        if target is not None:
            self._links[entry.path] = target
        checked = self._checked.pop(entry.path, None)
        state = (entry.size, entry.mtime_ns, entry.ctime_ns, entry.inode)
        if checked is not None and entry.kind is Kind.FILE and checked != state:
            raise TransientError(
                f"{shown(entry.path)} changed while the backup was made",
                remedy="It is tried again; exclude a file that is written all the time.",
                path=shown(entry.path),
            )

    def finish(self) -> None:
        """Check what links name, and that every shard is there.

        Raises:
            TransientError: A file is torn, or a shard is missing.
        """
        for link, target in self._links.items():
            place = self._roots[link.split("/", 1)[0]] / target
            try:
                with readable(str(place)), place.open("rb") as stream:
                    self._check(link, stream, os.fstat(stream.fileno()).st_size)
            except FileNotFoundError:
                raise torn(link, f"it links to {shown(target)}, which is not there") from None
        missing = self._shards.missing()
        if missing is not None:
            raise torn(missing[1], f"it names the shard {shown(missing[0])}, which is not there")

    def _check(self, path: str, stream: BinaryIO, size: int) -> None:
        try:
            self._shards.expect(path, formats.check(path, stream, size))
        except TornError as error:
            raise torn(path, str(error)) from None


def torn(path: str, problem: str) -> TransientError:
    """Return the error of a file that is not whole at its source."""
    return TransientError(
        f"{shown(path)} is torn: {problem}",
        remedy="It is tried again, for it may still be being written or fetched. If it is not, "
        "get it anew, or exclude it (`exclude`) so that the rest is backed up.",
        path=shown(path),
    )


@contextmanager
def _opened(found: Found) -> Iterator[BinaryIO]:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with readable(found.path):
        descriptor = os.open(found.name, flags, dir_fd=found.folder)
    with os.fdopen(descriptor, "rb") as stream:
        yield stream
