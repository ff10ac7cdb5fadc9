"""Restoring logs: the tree of one backup, made beside its place, compared, then renamed in."""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC
from fnmatch import fnmatchcase
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO

from neuroca_backup.engines import Difference, Restorable, RestoreTarget
from neuroca_backup.engines.logs import listing, selection
from neuroca_backup.engines.logs.assembly import Assembly
from neuroca_backup.engines.logs.listing import Root
from neuroca_backup.engines.logs.selection import Selection
from neuroca_backup.engines.logs.state import Entry
from neuroca_backup.errors import ConfigurationError, SpoolError, TargetRefusedError
from neuroca_backup.trees import comparing, placing, restoring
from neuroca_backup.trees.archive import INDEX, TAR, tar_info
from neuroca_backup.trees.entries import Kind, shown, within
from neuroca_backup.trees.placing import Unit
from neuroca_backup.trees.walking import outermost

_WHOLE = placing.Selection()
_MOST_DIFFERENCES = 1000  # a whole tree that differs must not fill the memory
_FILES = "files/"


def preflight(backup: Restorable, target: RestoreTarget) -> list[str]:
    """Refuse what cannot work before anything is touched; see the protocol."""
    wanted = selection.of(backup)
    _refuse_place(backup, wanted, target)
    notes = [one for one in (selection.note(backup, wanted),) if one]
    if backup.folders:
        found = _entries(backup, wanted, target)
        units = _units(backup, found, target)
        placing.refuse(units, replace=target.replace)
        _require_space(found, units)
        files = [one for one in found if one.content is not None]
        size = sum(one.tree.size for one in files)
        directory = target.endpoint.directory
        where = "To their places" if directory is None else f"Below {shown(str(directory))}"
        notes.append(f"{where}: {len(files):,} files of {size:,} bytes")
    if target.replace:
        notes.append("What is replaced is kept beside, as NAME.neuroca-replaced-TIME")
    if target.endpoint.directory is None:
        notes.append(
            "A program that has a log open goes on writing to the one that is kept, until it is "
            "restarted or told to open its logs again"
        )
    return notes


def load(backup: Restorable, target: RestoreTarget) -> list[str]:
    """Make the selected tree beside its place, afresh."""
    wanted = selection.of(backup)
    _refuse_place(backup, wanted, target)
    with _tree(backup, wanted, target) as tree:
        placing.refuse(tree.units, replace=target.replace)
        notes = list(restoring.build(tree.open, tree.units, _WHOLE))
    ended = sum(bool(one.last_seen) for one in tree.entries)
    if ended:
        notes.append(f"{ended:,} files have ended: their names say when they were seen last")
    return notes


def compare(backup: Restorable, target: RestoreTarget) -> list[Difference]:
    """Return where the copy, or what it has become, differs from the state of the backup."""
    wanted = selection.of(backup)
    found = _entries(backup, wanted, target)
    listed = ((one.tree, None) for one in found)
    units = _units(backup, found, target)
    differences = (
        Difference(f"{shown(str(change.place))} ({aspect})", expected, was)
        for change in comparing.changes(listed, units, _WHOLE, built=True)
        for aspect, (expected, was) in change.aspects.items()
    )
    return list(islice(differences, _MOST_DIFFERENCES))


def publish(backup: Restorable, target: RestoreTarget) -> list[str]:
    """Move the copy into its place; a repeat changes nothing more."""
    wanted = selection.of(backup)
    units = _units(backup, _entries(backup, wanted, target), target)
    notes = placing.publish(units, replace=target.replace)
    if target.endpoint.directory is None and not wanted.partial:
        for path in _others(wanted.manifest(backup).dump.facts, units):
            notes.append(f"{placing.keep(Path(path))} (the backup does not have it)")
    return notes


@dataclass(frozen=True, slots=True)
class _Tree:
    """The selected entries, as members of a tree: an index, a tar without files, and files."""

    entries: Sequence[Entry]
    units: tuple[Unit, ...]
    assembly: Assembly

    def open(self, name: str) -> BinaryIO:
        """Open a member, as `trees` does with those of a folder."""
        if name == INDEX:
            return io.BytesIO(b"".join(one.tree.encode() for one in self.entries))
        if name == TAR:
            return io.BytesIO(_tar(self.entries))
        entry = self.entries[int(name.removeprefix(_FILES))]
        return self.assembly.stream(entry.bytes, path=entry.path)


@contextmanager
def _tree(backup: Restorable, wanted: Selection, target: RestoreTarget) -> Iterator[_Tree]:
    found = [
        one
        if one.content is None
        else replace(one, tree=replace(one.tree, member=f"{_FILES}{number}"))
        for number, one in enumerate(_entries(backup, wanted, target))
    ]
    links = slice(wanted.links)
    with Assembly(backup.chain[links], backup.folders[links]) as assembly:
        yield _Tree(found, _units(backup, found, target), assembly)


def _entries(backup: Restorable, wanted: Selection, target: RestoreTarget) -> list[Entry]:
    found = selection.read(backup, wanted)
    if target.endpoint.directory is None and wanted.partial:
        # A folder of which only a part is wanted must not take the place of the whole.
        return [one for one in found if one.tree.kind is not Kind.DIRECTORY]
    return found


def _units(backup: Restorable, found: Sequence[Entry], target: RestoreTarget) -> tuple[Unit, ...]:
    moment = "" if backup.until is None else backup.until.astimezone(UTC).isoformat()
    words = "\n".join((backup.last.backup_id, moment, *backup.only))
    mark = hashlib.sha256(words.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    directory = target.endpoint.directory
    if directory is not None:
        return placing.into_directory(directory, mark)
    return placing.into_places((one.tree for one in found), _WHOLE, mark)


def _tar(found: Sequence[Entry]) -> bytes:
    """Return a tar of all that is no file."""
    out = io.BytesIO()
    with tarfile.open(
        fileobj=out,
        mode="w|",
        format=tarfile.PAX_FORMAT,
        encoding="utf-8",
        errors="surrogateescape",
    ) as tar:
        for one in found:
            if not one.tree.member:
                tar.addfile(tar_info(one.tree))
    return out.getvalue()


def _refuse_place(backup: Restorable, wanted: Selection, target: RestoreTarget) -> None:
    """Refuse a place that suits no restore of logs, whatever is there."""
    directory = target.endpoint.directory
    if directory is None and wanted.everything:
        raise ConfigurationError(
            f"`{selection.EVERYTHING}` brings back files that have ended, which have no place",
            remedy="Restore into a directory (--target-directory).",
            value=selection.EVERYTHING,
        )
    if directory is None:
        return
    for pattern in chain(*backup.last.dump.facts["listed"].values()):
        # The next backup would hold the restored copy.
        if any(fnmatchcase(str(one), pattern) for one in (directory, *directory.parents)):
            raise TargetRefusedError(
                f"{shown(str(directory))} lies within {pattern}, which is backed up itself",
                remedy="Choose a directory elsewhere, or restore in place with its confirmation.",
                path=shown(str(directory)),
            )


def _require_space(found: Sequence[Entry], units: Sequence[Unit]) -> None:
    free = shutil.disk_usage(units[0].staging.parent.parent).free
    needed = sum(one.tree.size for one in found)
    if free < needed:
        raise SpoolError(
            f"The restore needs {needed / 1e6:,.0f} MB beside {shown(str(units[0].place))}, and "
            f"{free / 1e6:,.0f} MB are free there",
            remedy="Make room, restore into a directory on another disk, or only a part (--only).",
            needed=needed,
            free=free,
        )


def _others(facts: Mapping[str, Any], units: Sequence[Unit]) -> Iterator[str]:
    """Yield what the listed paths match now, and the backup did not have."""
    roots = [
        Root(category, pattern, optional=True)
        for category, patterns in facts["listed"].items()
        for pattern in patterns
    ]
    tops = [unit.top for unit in units]
    now = listing.tops(roots, facts["exclude"])
    for path in outermost([one.lstrip("/") for one in now]):
        if not any(within(path, top) or within(top, path) for top in tops):
            yield f"/{path}"
