"""Which files there are: the configured paths and globs, and everything below them.

Nothing is passed over in silence: a folder that cannot be read, and a path that matches nothing,
are errors; what is no file, directory or symbolic link is counted.
"""

from __future__ import annotations

import errno
import fnmatch
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from neuroca_backup.errors import NotFoundError
from neuroca_backup.trees.entries import shown
from neuroca_backup.trees.placing import is_own
from neuroca_backup.trees.reading import attributes
from neuroca_backup.trees.walking import matching, readable

_MAGIC = re.compile(r"[*?\[]")

Identity = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Root:
    """A path or glob of `backup.yaml`: absolute, of a category; one that is `optional` may miss."""

    category: str
    pattern: str
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """A path that is there: what `lstat` says of it, and its category.

    `real` is its path without the symbolic links that lead to its root; below that there are none.
    """

    path: str
    category: str
    status: os.stat_result
    real: str

    @property
    def identity(self) -> Identity:
        """Device and inode: what stays when a file is renamed."""
        return self.status.st_dev, self.status.st_ino

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return stat.S_ISREG(self.status.st_mode)

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.status.st_mode)


@dataclass(slots=True)
class Listing:
    """All paths at one time, by path; `special` are sockets, pipes and devices, left out."""

    found: dict[str, Found] = field(default_factory=dict)
    special: set[str] = field(default_factory=set)

    @property
    def files(self) -> Iterator[Found]:
        """The regular files, by path."""
        return (one for _, one in sorted(self.found.items()) if one.is_file)

    def identities(self) -> dict[str, Identity]:
        """Device and inode of every regular file, by path."""
        return {path: one.identity for path, one in self.found.items() if one.is_file}


def take(roots: Sequence[Root], exclude: Sequence[str] = ()) -> Listing:
    """List what the `roots` match and what lies below, without what `exclude` (globs) matches.

    Where a path belongs to several roots, the one that names it most closely gives its category: a
    deeper one, a path rather than a glob, a longer glob. What a restore has left beside its places
    is left out, too. Symbolic links are listed as such and not followed: whoever may write to a
    folder of logs could lead us anywhere. Only what leads to a path that is listed without a glob
    is listed, too, under its real path.

    Raises:
        AccessDeniedError: A folder may not be read; names it.
        NotFoundError: A root that is not optional matches nothing; names it.
    """
    excluded = _excluded(exclude)
    listing = Listing()
    # A root deeper down comes later, and its category replaces that of a root above it.
    for path, category in sorted(tops(roots, exclude).items(), key=lambda top: top[0].count("/")):
        _add(listing, path, category, excluded)
    return listing


def tops(roots: Sequence[Root], exclude: Sequence[str] = ()) -> dict[str, str]:
    """Return the paths that the `roots` match, each with its category; raises as `take` does."""
    excluded = _excluded(exclude)
    found: dict[str, str] = {}
    for root in sorted(roots, key=lambda one: (_is_glob(one.pattern), -len(one.pattern))):
        matched = [path for path in _expanded(root.pattern) if not excluded(path)]
        if not _is_glob(root.pattern):
            matched += [real for real in map(os.path.realpath, matched) if real not in matched]
            matched = [path for path in matched if os.path.exists(path)]  # noqa: PTH110 - text paths
        if not matched and not root.optional:
            raise NotFoundError(
                f"{shown(root.pattern)}, listed under options.{root.category}, matches nothing",
                remedy="Correct the path; write {path: ..., optional: true} where it may be "
                "absent.",
                path=f"options.{root.category}",
                value=shown(root.pattern),
            )
        for path in matched:
            found.setdefault(path, root.category)
    return found


def _is_glob(pattern: str) -> bool:
    return _MAGIC.search(pattern) is not None


def _excluded(patterns: Sequence[str]) -> Callable[[str], bool]:
    matches = matching(patterns)
    return lambda path: is_own(path.rpartition("/")[2]) or matches(path.lstrip("/"))


def _add(listing: Listing, path: str, category: str, excluded: Callable[[str], bool]) -> None:
    """Add `path` and everything below it."""
    folder, _, name = path.rpartition("/")
    real = f"{os.path.realpath(folder or '/').rstrip('/')}/{name}"
    pending = [path]
    while pending:
        one = pending.pop()
        if excluded(one):
            continue
        status = status_of(one)
        if status is None:
            continue  # gone since its folder was read
        kind = stat.S_IFMT(status.st_mode)
        if kind not in {stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK}:
            listing.special.add(one)
            continue
        listing.found[one] = Found(one, category, status, real + one[len(path) :])
        if kind == stat.S_IFDIR:
            pending += [_joined(one, name) for name in names_in(one)]


def status_of(path: str) -> os.stat_result | None:
    """Return what `lstat` says of `path`; None where it is not there any more.

    Raises:
        AccessDeniedError, PermanentError: Its folder may not be searched, or cannot be read.
    """
    with readable(path), suppress(FileNotFoundError, NotADirectoryError):
        return os.lstat(path)
    return None


def names_in(folder: str) -> list[str]:
    """Return the names in `folder`; none where it is gone.

    Raises:
        AccessDeniedError, PermanentError: It may not, or cannot, be read.
    """
    with readable(folder), suppress(FileNotFoundError, NotADirectoryError):
        return os.listdir(folder)  # noqa: PTH208 - texts are all that is needed
    return []


def target_of(path: str) -> str | None:
    """Return where a symbolic link leads, None where it is gone, or something else by now."""
    with readable(path), suppress(FileNotFoundError, NotADirectoryError):
        try:
            return os.readlink(path)  # noqa: PTH115 - a Path would normalise it
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
    return None


def attributes_of(folder: str) -> Mapping[str, str]:
    """Return the extended attributes of a folder, values in base64; none where it is gone."""
    with readable(folder), suppress(FileNotFoundError, NotADirectoryError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            return attributes(descriptor)
        finally:
            os.close(descriptor)
    return {}


def _expanded(pattern: str) -> list[str]:
    """Return the paths that `pattern` matches: `*`, `?`, `[...]` within a name, `**` any folders.

    The standard library's glob takes a folder that it may not read for an empty one.
    """
    paths = {"/"}
    for part in PurePosixPath(pattern).parts[1:]:
        if part == "**":
            paths = {below for path in paths for below in _folders(path)}
        elif _is_glob(part):
            paths = {
                _joined(path, name)
                for path in paths
                for name in names_in(path)
                if fnmatch.fnmatchcase(name, part)
            }
        else:
            paths = {_joined(path, part) for path in paths}
    return sorted(path for path in paths if status_of(path) is not None)


def _folders(path: str) -> Iterator[str]:
    """Yield `path` and every folder below it, links not followed."""
    pending = [path]
    while pending:
        folder = pending.pop()
        yield folder
        for name in names_in(folder):
            below = _joined(folder, name)
            status = status_of(below)
            if status is not None and stat.S_ISDIR(status.st_mode):
                pending.append(below)


def _joined(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}"
