"""Listing trees: every path below some tops, without ever following a symbolic link."""

from __future__ import annotations

import fnmatch
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from neuroca_backup.errors import AccessDeniedError, NotFoundError, PermanentError
from neuroca_backup.trees.entries import order, shown, within
from neuroca_backup.trees.placing import is_own
from neuroca_backup.trees.totals import Remarks

VANISHED = "vanished between being listed and being read"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Found:
    """One path that was found: `name` in the open directory `folder`, as `lstat` saw it.

    The descriptor is good until the next one is asked for.
    """

    path: str
    section: str
    status: os.stat_result
    name: str
    folder: int


def walk(
    base: Path,
    tops: Mapping[str, str],
    *,
    remarks: Remarks,
    excluded: Callable[[str], bool] = lambda _: False,
) -> Iterator[Found]:
    """Yield every path below `tops` (paths below `base`, each with its section), in their order.

    A top below another is walked once, as a part of that, and its section is the nearer one's.
    What `excluded` accepts is left out with all below it, and so is what restores have left
    beside their places. A path that vanishes meanwhile is remarked on.

    Raises:
        NotFoundError: A top does not exist.
        AccessDeniedError: A directory may not be read.
        PermanentError: It cannot be read for another reason.
    """
    for top in outermost(tops):
        yield from _below(base, top, tops, remarks, excluded)


def outermost(paths: Mapping[str, str] | Sequence[str]) -> list[str]:
    """Return the paths that are below no other, in their order."""
    found: list[str] = []
    for path in sorted(paths, key=order):
        if not found or not within(path, found[-1]):
            found.append(path)
    return found


def matching(patterns: Sequence[str]) -> Callable[[str], bool]:
    """Return what tells whether a path matches one of `patterns`, or has a part that does.

    A pattern with a `/` is compared with the whole path (a leading `/` is dropped), another with
    the last part of it; `*` and `?` do not stop at a `/`.
    """
    names = [re.compile(fnmatch.translate(one)) for one in patterns if "/" not in one]
    paths = [re.compile(fnmatch.translate(one.lstrip("/"))) for one in patterns if "/" in one]

    def matches(path: str) -> bool:
        name = path.rpartition("/")[2]
        return any(one.match(name) for one in names) or any(one.match(path) for one in paths)

    return matches


@contextmanager
def readable(path: str) -> Iterator[None]:
    """Turn what the system says while `path` is read into one of this project's errors.

    That a path is gone is passed on as it is.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except PermissionError:
        raise AccessDeniedError(
            f"{shown(path)} may not be read by user id {os.geteuid()}",
            remedy="Let the user who makes the backups read it (a group, or an ACL), run them as "
            "root, or exclude it.",
            path=shown(path),
        ) from None
    except OSError as error:
        raise PermanentError(
            f"{shown(path)} cannot be read: {error.strerror}",
            remedy="Look at the disk or mount that it is on; exclude it if it is not wanted.",
            path=shown(path),
        ) from None


def _below(
    base: Path,
    top: str,
    tops: Mapping[str, str],
    remarks: Remarks,
    excluded: Callable[[str], bool],
) -> Iterator[Found]:
    parent, _, name = top.rpartition("/")
    prefix = f"{parent}/" if parent else ""
    stack: list[tuple[int, str, str, Iterator[str]]] = []
    try:
        stack.append((_opened_above(base, top), prefix, tops[top], iter([name])))
        while stack:
            folder, prefix, section, names = stack[-1]
            found = next(names, None)
            if found is None:
                os.close(folder)
                stack.pop()
                continue
            path = prefix + found
            if is_own(found) or excluded(path):
                continue
            section = tops.get(path, section)
            try:
                with readable(str(base / path)):
                    status = os.stat(found, dir_fd=folder, follow_symlinks=False)
                yield Found(path, section, status, found, folder)
                if stat.S_ISDIR(status.st_mode):
                    inner = _entered(base, path, found, folder)
                    stack.append((inner, f"{path}/", section, iter(())))
                    with readable(str(base / path)):
                        listed = sorted(os.listdir(inner))  # noqa: PTH208 - of a descriptor
                    stack[-1] = (inner, f"{path}/", section, iter(listed))
            except FileNotFoundError:
                remarks.add(VANISHED, path)
    finally:
        for folder, *_ in stack:
            os.close(folder)


def _opened_above(base: Path, top: str) -> int:
    """Return the open directory that `top` is in.

    Raises:
        NotFoundError: There is no such path.
    """
    folder = -1
    try:
        with readable(str(base / top)):
            folder = os.open((base / top).parent, _DIRECTORY)
            os.stat((base / top).name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        if folder >= 0:
            os.close(folder)
        raise NotFoundError(
            f"{shown(str(base / top))} does not exist",
            remedy="Correct the path, or take it off the list.",
            path=shown(str(base / top)),
        ) from None
    return folder


def _entered(base: Path, path: str, name: str, folder: int) -> int:
    """Return the open directory; one that is something else by now is as good as gone."""
    with readable(str(base / path)):
        try:
            return os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
        except NotADirectoryError:
            raise FileNotFoundError from None
