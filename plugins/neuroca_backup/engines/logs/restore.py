"""Restoring logs: the tree of one backup, made beside its place, compared, then renamed in."""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC
from pathlib import Path
from typing import BinaryIO

from neuroca_backup.engines import Difference, Restorable, RestoreTarget
from neuroca_backup.engines.logs import selection
from neuroca_backup.engines.logs.assembly import Assembly
from neuroca_backup.engines.logs.selection import Selection
from neuroca_backup.engines.logs.state import Entry
from neuroca_backup.errors import ConfigurationError, SpoolError, TargetRefusedError
from neuroca_backup.trees import comparing, placing, restoring
from neuroca_backup.trees.archive import INDEX, TAR, tar_info
from neuroca_backup.trees.entries import Kind, shown
from neuroca_backup.trees.placing import Unit

_WHOLE = placing.Selection()


def preflight(backup: Restorable, target: RestoreTarget) -> list[str]:
    """Refuse what cannot work before anything is touched; see the protocol."""
    wanted = selection.of(backup)
    facts = wanted.manifest(backup).dump.facts
    notes = [one for one in (selection.note(backup, wanted),) if one]
    directory = target.endpoint.directory
    if directory is None:
        _refuse_in_place(wanted, target)
        notes.append(
            "Files go back to their own places, and what is there is kept beside; a program that "
            "has one of them open goes on writing to the kept one until it opens its logs again."
        )
        return notes
    placing.refuse(placing.into_directory(directory, _mark(backup)), replace=target.replace)
    needed = sum(one["bytes"] for one in facts["categories"].values())
    needed += facts["ended"]["bytes"] if wanted.everything else 0
    free = shutil.disk_usage(_standing(directory)).free
    if free < needed and not wanted.partial:
        raise SpoolError(
            f"The logs need {needed:,} bytes, and {free:,} are free where "
            f"{shown(str(directory))} is",
            remedy="Make room, restore into a directory on another disk, or only a part (--only).",
            needed=needed,
            free=free,
        )
    return [*notes, f"{shown(str(directory))} will hold the logs, each below its own path."]


def load(backup: Restorable, target: RestoreTarget) -> list[str]:
    """Make the selected tree beside its place, afresh."""
    wanted = selection.of(backup)
    if target.endpoint.directory is None:
        _refuse_in_place(wanted, target)
    with _tree(backup, wanted, target) as tree:
        placing.refuse(tree.units, replace=target.replace)
        notes = restoring.build(tree.open, tree.units, _WHOLE)
    ended = sum(bool(one.last_seen) for one in tree.entries)
    if ended:
        notes = (*notes, f"{ended:,} files have ended: their names say when they were seen last")
    return list(notes)


def compare(backup: Restorable, target: RestoreTarget) -> list[Difference]:
    """Return where the copy, or what was made of it, differs from the state of the backup."""
    with _tree(backup, selection.of(backup), target) as tree:
        listed = ((one.tree, None) for one in tree.entries)
        return [
            Difference(f"/{shown(change.path)} ({aspect})", expected, found)
            for change in comparing.changes(listed, tree.units, _WHOLE, built=True)
            for aspect, (expected, found) in change.aspects.items()
        ]


def publish(backup: Restorable, target: RestoreTarget) -> list[str]:
    """Move the copy into its place; a repeat changes nothing more."""
    with _tree(backup, selection.of(backup), target) as tree:
        return placing.publish(tree.units, replace=target.replace)


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


_FILES = "files/"


@contextmanager
def _tree(backup: Restorable, wanted: Selection, target: RestoreTarget) -> Iterator[_Tree]:
    directory = target.endpoint.directory
    found = selection.read(backup, wanted)
    if directory is None and wanted.partial:
        # A folder of which only a part is wanted must not take the place of the whole.
        found = [one for one in found if one.tree.kind is not Kind.DIRECTORY]
    named = [
        one
        if one.content is None
        else replace(one, tree=replace(one.tree, member=f"{_FILES}{number}"))
        for number, one in enumerate(found)
    ]
    mark = _mark(backup)
    if directory is None:
        units = placing.into_places((one.tree for one in named), _WHOLE, mark)
    else:
        units = placing.into_directory(directory, mark)
    links = slice(wanted.links)
    with Assembly(backup.chain[links], backup.folders[links]) as assembly:
        yield _Tree(named, units, assembly)


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


def _refuse_in_place(wanted: Selection, target: RestoreTarget) -> None:
    if wanted.everything:
        raise ConfigurationError(
            f"`{selection.EVERYTHING}` brings back files that have ended, which have no place",
            remedy="Restore into a directory (--target-directory).",
            value=selection.EVERYTHING,
        )
    if not target.replace:
        raise TargetRefusedError(
            "The logs would take the place of those that are there",
            remedy="Restore into a directory, or confirm the restore in place.",
            target=target.endpoint.label,
        )


def _mark(backup: Restorable) -> str:
    """Return what tells this restore's copy from those of others."""
    moment = "" if backup.until is None else backup.until.astimezone(UTC).isoformat()
    words = [backup.last.backup_id, moment, *backup.only]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:12]


def _standing(place: Path) -> Path:
    """Return the nearest directory above `place` that exists."""
    return next(one for one in place.parents if one.is_dir())
