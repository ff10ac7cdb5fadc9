"""Restoring below a directory, or to where the files came from; always beside first."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from neuroca_backup.engines import Difference, Restorable, RestoreTarget
from neuroca_backup.engines.filetree import listing
from neuroca_backup.engines.filetree.dump import system_version
from neuroca_backup.engines.filetree.listing import ROOT
from neuroca_backup.errors import ConfigurationError, SpoolError, TargetRefusedError
from neuroca_backup.trees import archive, placing, restoring
from neuroca_backup.trees.comparing import Change, changes
from neuroca_backup.trees.entries import Entry, is_path, shown, within
from neuroca_backup.trees.placing import Selection, Unit

_MOST_DIFFERENCES = 1000  # a whole tree that differs must not fill the memory


def preflight(backup: Restorable, target: RestoreTarget) -> list[str]:
    """Refuse what cannot work before anything is touched; see the protocol."""
    system_version(target.endpoint)
    selection = selected(backup.only, backup.last.dump.facts)
    _refuse_listed(backup, target)
    if not backup.folders:
        return []
    _require_chosen(backup, selection)
    units = _units(backup, target, selection)
    placing.refuse(units, replace=target.replace)
    _require_space(backup, units)
    counts = Counter(change.kind for change in preview(backup, target))
    where = target.endpoint.directory
    return [
        f"{'To their places' if where is None else f'Below {where}'}: "
        + ", ".join(f"{counts[kind]:,} paths {kind}" for kind in ("added", "changed", "removed")),
        *(
            ["What is replaced is kept beside, as NAME.neuroca-replaced-TIME"]
            if target.replace
            else []
        ),
    ]


def preview(
    backup: Restorable, target: RestoreTarget, *, contents: bool = False
) -> Iterator[Change]:
    """Yield every path that a restore would add, change or remove; it touches nothing.

    With `contents` a change of a small file has the backup's content, good until the next one is
    asked for; every member has to have been fetched.
    """
    selection = selected(backup.only, backup.last.dump.facts)
    units = _units(backup, target, selection)
    opened = partial(_open, backup)
    pairs: Iterator[tuple[Entry, BinaryIO | None]] = (
        archive.contents(opened)
        if contents
        else ((entry, None) for entry in archive.read_index(opened))
    )
    more = _removed(backup, target, selection, units)
    yield from changes(pairs, units, selection, built=False, more=more)


def load(backup: Restorable, target: RestoreTarget) -> list[str]:
    """Make the tree beside its place; see the protocol."""
    selection = selected(backup.only, backup.last.dump.facts)
    _require_chosen(backup, selection)
    units = _units(backup, target, selection)
    placing.refuse(units, replace=target.replace)
    return list(restoring.build(partial(_open, backup), units, selection))


def compare(backup: Restorable, target: RestoreTarget) -> list[Difference]:
    """Return how the copy, or what it has become in its place, differs from the index."""
    selection, opened = selected(backup.only, backup.last.dump.facts), partial(_open, backup)
    archive.check_index(opened, backup.last.dump.facts)
    units = _units(backup, target, selection)
    pairs = ((entry, None) for entry in archive.read_index(opened))
    found = (
        Difference(f"{shown(str(change.place))} ({aspect})", expected, was)
        for change in changes(pairs, units, selection, built=True)
        for aspect, (expected, was) in change.aspects.items()
    )
    return list(islice(found, _MOST_DIFFERENCES))


def publish(backup: Restorable, target: RestoreTarget) -> list[str]:
    """Rename the copy into its place; see the protocol."""
    selection = selected(backup.only, backup.last.dump.facts)
    units = _units(backup, target, selection)
    notes = placing.publish(units, replace=target.replace)
    for path in _removed(backup, target, selection, units):
        notes.append(placing.keep(ROOT / path) + " (the backup does not have it)")
    return notes


def _open(backup: Restorable, name: str) -> BinaryIO:
    return (backup.folders[-1] / name).open("rb")


def _units(backup: Restorable, target: RestoreTarget, selection: Selection) -> tuple[Unit, ...]:
    words = "\n".join((backup.last.backup_id, *backup.only))
    mark = hashlib.sha256(words.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    directory = target.endpoint.directory
    if directory is not None:
        return placing.into_directory(directory, mark)
    index = archive.read_index(partial(_open, backup))
    return placing.into_places(index, selection, mark, base=ROOT)


def selected(only: Sequence[str], facts: Mapping[str, Any]) -> Selection:
    """Return what `only` names: sections, and paths as they are in the source.

    Raises:
        ConfigurationError: A word is neither, or the backup has nothing of that section.
    """
    sections, paths = [], []
    held = facts["sections"]
    for word in only:
        path = word.strip("/")
        if word in held:
            sections.append(word)
        elif word.startswith("/") and is_path(path):
            paths.append(path)
        else:
            raise ConfigurationError(
                f"{shown(word)!r} is neither an absolute path nor a section of the backup",
                remedy=f"Name a path such as /etc/neuroca, or one of: {', '.join(held)}.",
                value=shown(word),
            )
    return Selection(tuple(sections), tuple(paths))


def _require_chosen(backup: Restorable, selection: Selection) -> None:
    missing = set(selection.paths)
    for entry in archive.read_index(partial(_open, backup)) if missing else ():
        missing = {path for path in missing if not within(entry.path, path)}
        if not missing:
            break
    if missing:
        raise ConfigurationError(
            f"{backup.last.backup_id} has nothing at /{shown(min(missing))}",
            remedy="Name a path that the backup holds; `config-import --diff` and the restore's "
            "dry run list them.",
            value=shown(min(missing)),
        )


def _removed(
    backup: Restorable, target: RestoreTarget, selection: Selection, units: Sequence[Unit]
) -> list[str]:
    """Return what the lists match now and the backup does not have; in place, and as a whole."""
    if target.endpoint.directory is not None or not selection.everything:
        return []
    return listing.removed(backup.last.dump.facts, [unit.top for unit in units])


def _refuse_listed(backup: Restorable, target: RestoreTarget) -> None:
    """Refuse a directory within what is listed: the next backup would hold the restored copy."""
    directory = target.endpoint.directory
    for items in backup.last.dump.facts["listed"].values() if directory is not None else ():
        for item in items:
            if Path(item["path"]) in (directory, *directory.parents):  # type: ignore[union-attr]  # see above
                raise TargetRefusedError(
                    f"{directory} lies within {item['path']}, which is backed up itself",
                    remedy="Choose a directory elsewhere, or restore in place with its "
                    "confirmation.",
                    path=str(directory),
                )


def _require_space(backup: Restorable, units: Sequence[Unit]) -> None:
    if not units:
        return
    free = shutil.disk_usage(units[0].staging.parent.parent).free
    needed = int(backup.last.dump.facts["bytes"])
    if free < needed:
        raise SpoolError(
            f"The restore needs {needed / 1e6:,.0f} MB beside {shown(str(units[0].place))}, and "
            f"{free / 1e6:,.0f} MB are free there",
            remedy="Make room, or restore into a directory on another disk.",
            needed=needed,
            free=free,
        )
