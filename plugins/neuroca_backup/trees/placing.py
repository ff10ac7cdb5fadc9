"""Where a restored tree goes: made beside its place, then renamed into it, the old one kept."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import re
import shutil
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from neuroca_backup.errors import (
    AccessDeniedError,
    BackupError,
    ConfigurationError,
    PermanentError,
    TargetRefusedError,
)
from neuroca_backup.trees.entries import Entry, Kind, order, shown, within

_STAGING = ".neuroca-restoring-"
_KEPT = re.compile(r".*\.neuroca-replaced-\d{8}T\d{6}Z(-\d+)?", re.DOTALL)


class Located(Protocol):
    """What has a place in a tree: an entry, or a path that was found."""

    @property
    def path(self) -> str:
        """Where it is."""
        ...

    @property
    def section(self) -> str:
        """The word under which it was listed."""
        ...


@dataclass(frozen=True, slots=True)
class Selection:
    """What of a tree is restored: sections and paths; everything where both are empty."""

    sections: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()

    @property
    def everything(self) -> bool:
        """Whether nothing is left out."""
        return not (self.sections or self.paths)

    def accepts(self, entry: Located) -> bool:
        """Return whether `entry` is restored."""
        if self.everything or entry.section in self.sections:
            return True
        return any(within(entry.path, path) for path in self.paths)


@dataclass(frozen=True, slots=True)
class Unit:
    """What one rename puts in its place: the entry `top` and all below it.

    With `top` "" it is a directory that holds the tree below its own path. The copy is made at
    `staging`, in a private folder on the same disk as `place`.
    """

    top: str
    place: Path
    staging: Path

    @property
    def built(self) -> Path:
        """The copy where it is being made, or its place once it was moved there."""
        return self.staging if os.path.lexists(self.staging) else self.place

    def at(self, root: Path, path: str) -> Path:
        """Return where the entry `path` is, with the unit at `root` (`place` or `staging`)."""
        below = path[len(self.top) :].lstrip("/")
        return root / below if below else root


def is_own(name: str) -> bool:
    """Return whether a restore has made this name beside a place."""
    return name.startswith(_STAGING) or _KEPT.fullmatch(name) is not None


def into_directory(directory: Path, mark: str) -> tuple[Unit, ...]:
    """Return the one unit that a tree is below the path `directory`, whatever it holds.

    `mark` tells restores of other backups apart; the same one finds what a killed try has left.
    """
    own = hashlib.sha256(mark.encode() + os.fsencode(directory)).hexdigest()[:16]
    return (Unit("", directory, _staging(directory, own, 0)),)


def into_places(
    entries: Iterable[Entry], selection: Selection, mark: str, *, base: Path = Path("/")
) -> tuple[Unit, ...]:
    """Return the units that put the selected entries back to their places below `base`.

    Raises:
        ConfigurationError: A selected directory holds what was not selected, and moving it into
            place would take that away.
    """
    units: list[Unit] = []
    top: Entry | None = None
    for entry in entries:
        inside = top is not None and top.kind is Kind.DIRECTORY and within(entry.path, top.path)
        if selection.accepts(entry):
            if not inside:
                top = entry
                place = base / entry.path
                units.append(Unit(entry.path, place, _staging(place, mark, len(units))))
        elif inside and top is not None:
            raise ConfigurationError(
                f"{shown(entry.path)} is of the section {entry.section}, which was not chosen, and "
                f"lies in {shown(top.path)}, which was",
                remedy="Choose both, or restore into a directory.",
                value=shown(entry.path),
            )
    return tuple(units)


def unit_of(units: Sequence[Unit], path: str) -> Unit:
    """Return the unit that `path` is a part of; `units` are in their order.

    Raises:
        LookupError: It is a part of none.
    """
    low, high = 0, len(units)
    while low < high:  # the last unit whose top is not after the path
        middle = (low + high) // 2
        if units[middle].top and order(units[middle].top) > order(path):
            high = middle
        else:
            low = middle + 1
    if low and within(path, units[low - 1].top):
        return units[low - 1]
    raise LookupError(path)


def refuse(units: Sequence[Unit], *, replace: bool) -> None:
    """Refuse places that may not, or cannot, be replaced by a rename, before anything is touched.

    Raises:
        TargetRefusedError: A place holds something and `replace` is not allowed, or is the root
            of a mount.
        ConfigurationError: A directory above a place is none.
        AccessDeniedError: This user may not write beside a place.
    """
    for unit in units:
        if _occupied(unit.place) and not replace:
            raise TargetRefusedError(
                f"{shown(str(unit.place))} is there and not empty",
                remedy="Restore into an absent or empty directory, or in place with its "
                "confirmation; that keeps what is there under another name.",
                path=shown(str(unit.place)),
            )
        if os.path.ismount(unit.place):
            raise TargetRefusedError(
                f"{shown(str(unit.place))} is the root of a mount, which no rename can replace",
                remedy="Restore into a directory and copy from there, or unmount it first.",
                path=shown(str(unit.place)),
            )
        above = _standing(unit.place)
        if not above.is_dir():
            raise ConfigurationError(
                f"{shown(str(above))} is no directory, and {shown(str(unit.place))} lies in it",
                remedy="Move it away, or restore into another directory.",
                path=shown(str(above)),
            )
        if not os.access(above, os.W_OK | os.X_OK):
            raise AccessDeniedError(
                f"User id {os.geteuid()} may not write to {shown(str(above))}",
                remedy="Restore as root, or into a directory of your own.",
                path=shown(str(above)),
            )


def clean(units: Sequence[Unit]) -> None:
    """Remove what an earlier try has left beside the places."""
    for folder in {unit.staging.parent for unit in units}:
        with suppress(FileNotFoundError):
            shutil.rmtree(folder)


def publish(units: Sequence[Unit], *, replace: bool) -> list[str]:
    """Move every finished copy into its place and keep what was there; return a note for each.

    What was published by an earlier try is left alone, so a repeat changes nothing more.

    Raises:
        TargetRefusedError: A place holds something by now and may not be replaced.
    """
    notes = []
    waiting = [unit for unit in units if os.path.lexists(unit.staging)]
    for folder in {unit.staging.parent for unit in waiting}:
        _settle(folder)
    for unit in waiting:
        refuse([unit], replace=replace)
        try:
            if _occupied(unit.place):
                notes.append(keep(unit.place))
            elif unit.place.is_dir() and not unit.place.is_symlink():
                unit.place.rmdir()
            unit.place.parent.mkdir(parents=True, exist_ok=True)
            unit.staging.rename(unit.place)
            _sync(unit.place.parent)
        except OSError as error:
            raise _unmovable(unit.place, error) from None
    for unit in units:
        if not os.path.lexists(unit.place):
            raise PermanentError(
                f"{shown(str(unit.place))} is neither restored nor waiting to be moved into place",
                remedy="Restore it again.",
                path=shown(str(unit.place)),
            )
    for folder in {unit.staging.parent for unit in units}:
        with suppress(FileNotFoundError):
            folder.rmdir()
    return notes


def keep(place: Path) -> str:
    """Give what is at `place` another name beside it; return a note that tells it."""
    # Hidden where it is a file: programs read all that is in a `conf.d`.
    hidden = "" if place.is_dir() and not place.is_symlink() else "."
    stamp = f"{hidden}{place.name}.neuroca-replaced-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    kept, number = place.with_name(stamp), 1
    while os.path.lexists(kept):
        number += 1
        kept = place.with_name(f"{stamp}-{number}")
    try:
        place.rename(kept)
        _sync(place.parent)
    except OSError as error:
        raise _unmovable(place, error) from None
    return f"{shown(str(place))} is kept as {shown(kept.name)}; remove it when it is not needed"


def _staging(place: Path, mark: str, number: int) -> Path:
    """Return where the copy for `place` is made: in a folder in the nearest directory there is.

    Once a neighbour was published, that may be a nearer one than when the copy was made.
    """
    below = Path(f"{_STAGING}{mark}") / str(number)
    standing = _standing(place)
    for above in (standing, *standing.parents):
        if os.path.lexists(above / below):
            return above / below
    return standing / below


def _standing(place: Path) -> Path:
    """Return the nearest directory above `place` that exists."""
    above = place.parent
    while not os.path.lexists(above):
        above = above.parent
    return above


def _occupied(place: Path) -> bool:
    try:
        status = place.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return not stat.S_ISDIR(status.st_mode) or any(place.iterdir())


def _settle(folder: Path) -> None:
    """Have everything on the disk of `folder` written; a rename must not come before its content.

    https://man7.org/linux/man-pages/man2/syncfs.2.html
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syncfs(descriptor):
            code = ctypes.get_errno()
            raise PermanentError(
                f"The disk of {shown(str(folder))} could not write what was restored: "
                f"{os.strerror(code)}",
                remedy="Look at that disk; nothing was moved into place.",
                path=shown(str(folder)),
            )
    finally:
        os.close(descriptor)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unmovable(place: Path, error: OSError) -> BackupError:
    kind = AccessDeniedError if error.errno in {errno.EACCES, errno.EPERM} else PermanentError
    return kind(
        f"{shown(str(place))} cannot be replaced: {error.strerror}",
        remedy="Mend that and publish again; what is not yet replaced is as it was.",
        path=shown(str(place)),
    )
