"""Restoring models: into a directory, or each to its own root, by a copy beside and a rename."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from neuroca_backup.engines import Difference, Restorable, RestoreTarget
from neuroca_backup.errors import ConfigurationError, SpoolError, TargetRefusedError
from neuroca_backup.trees import archive, placing, restoring
from neuroca_backup.trees.comparing import changes
from neuroca_backup.trees.entries import is_path, order, shown
from neuroca_backup.trees.placing import Selection, Unit

_MOST_DIFFERENCES = 1_000  # a whole model that differs must not fill the memory


def preflight(backup: Restorable, target: RestoreTarget) -> list[str]:
    """Refuse what cannot work before anything is touched.

    Raises:
        ConfigurationError: `only` names what the backup does not have.
        TargetRefusedError: A place holds something and may not be replaced, or lies in a root.
        SpoolError: The target's disk has no room for the copy.
    """
    selection = _selection(backup)
    _refuse_roots(backup, target)
    if not backup.folders:
        return []
    _require_found(backup, selection)
    units = _units(backup, target, selection)
    placing.refuse(units, replace=target.replace)
    _require_space(backup, units, selection)
    entries = ((entry, None) for entry in archive.read_index(partial(_open, backup)))
    counts = Counter(one.kind for one in changes(entries, units, selection, built=False))
    where = target.endpoint.directory
    notes = [
        f"{'To their roots' if where is None else f'Below {where}'}: "
        + ", ".join(f"{counts[kind]:,} paths {kind}" for kind in ("added", "changed", "removed"))
    ]
    if target.replace:
        notes.append("What is replaced is kept beside, as NAME.neuroca-replaced-TIME")
    return notes


def load(backup: Restorable, target: RestoreTarget) -> list[str]:
    """Make the copies; return notes of what could not be set as it was."""
    selection = _selection(backup)
    _require_found(backup, selection)
    units = _units(backup, target, selection)
    placing.refuse(units, replace=target.replace)
    return list(restoring.build(partial(_open, backup), units, selection, prefix=""))


def compare(backup: Restorable, target: RestoreTarget) -> list[Difference]:
    """Return how the copies, wherever they are by now, differ from the backup."""
    selection, opened = _selection(backup), partial(_open, backup)
    archive.check_index(opened, backup.last.dump.facts)
    units = _units(backup, target, selection)
    entries = ((entry, None) for entry in archive.read_index(opened))
    found = (
        Difference(f"{shown(change.path)} ({aspect})", expected, was)
        for change in changes(entries, units, selection, built=True)
        for aspect, (expected, was) in change.aspects.items()
    )
    return list(islice(found, _MOST_DIFFERENCES))


def publish(backup: Restorable, target: RestoreTarget) -> list[str]:
    """Move the copies into place; return a note of everything that is kept beside."""
    units = _units(backup, target, _selection(backup))
    return placing.publish(units, replace=target.replace)


def _open(backup: Restorable, name: str) -> BinaryIO:
    return (backup.folders[-1] / name).open("rb")


def _models(backup: Restorable) -> Mapping[str, str]:
    """Return the root of every model in the backup, by the model's name."""
    found: Mapping[str, str] = backup.last.dump.facts["models"]
    return found


def _units(backup: Restorable, target: RestoreTarget, selection: Selection) -> tuple[Unit, ...]:
    words = "\n".join((backup.last.backup_id, *backup.only))
    mark = hashlib.sha256(words.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    directory = target.endpoint.directory
    roots: dict[str, set[str]] = {}
    for model, root in _models(backup).items():
        # Each model for itself, so that several backups can be restored into one directory.
        roots.setdefault(str(directory or root), set()).add(model)
    units: list[Unit] = []
    for root, models in roots.items():
        index = archive.read_index(partial(_open, backup))
        own = (entry for entry in index if entry.path.split("/", 1)[0] in models)
        units += placing.into_places(own, selection, mark, base=Path(root))
    return tuple(sorted(units, key=lambda unit: order(unit.top)))


def _selection(backup: Restorable) -> Selection:
    models = _models(backup)
    for path in backup.only:
        if not is_path(path) or path.split("/", 1)[0] not in models:
            raise ConfigurationError(
                f"{shown(path)} is not in {backup.last.backup_id}",
                remedy="Write the name of a model, or a path that begins with it. The backup "
                f"has: {', '.join(shown(name) for name in islice(models, 20))}.",
                value=shown(path),
            )
    return Selection(paths=backup.only)


def _require_found(backup: Restorable, selection: Selection) -> None:
    missing = set(selection.paths)
    for entry in archive.read_index(partial(_open, backup)) if missing else ():
        missing.discard(entry.path)
        if not missing:
            break
    if missing:
        raise ConfigurationError(
            f"{backup.last.backup_id} has no {shown(min(missing))}",
            remedy="`neuroca-backup decrypt` writes the member index.jsonl, which lists the paths.",
            value=shown(min(missing)),
        )


def _refuse_roots(backup: Restorable, target: RestoreTarget) -> None:
    """Refuse a directory within a root: the next backup would take the copy for a model."""
    directory = target.endpoint.directory
    for root in set(_models(backup).values()) if directory is not None else ():
        if Path(root) in (directory, *directory.parents):  # type: ignore[union-attr]  # see above
            raise TargetRefusedError(
                f"{directory} lies within {root}, whose models are backed up",
                remedy="Choose a directory elsewhere, or restore in place with its confirmation.",
                path=str(directory),
            )


def _require_space(backup: Restorable, units: Sequence[Unit], selection: Selection) -> None:
    """Raise `SpoolError` unless each disk has room for the copies made there, without holes."""
    needed: dict[int, int] = {}
    places: dict[int, Path] = {}
    for entry in archive.read_index(partial(_open, backup)):
        if selection.accepts(entry) and not entry.sparse:
            above = placing.unit_of(units, entry.path).staging.parent.parent
            device = above.stat().st_dev
            places[device] = above
            needed[device] = needed.get(device, 0) + entry.size
    for device, size in needed.items():
        free = shutil.disk_usage(places[device]).free
        if free < size:
            raise SpoolError(
                f"The copies beside {shown(str(places[device]))} need {size / 1e6:,.0f} MB, and "
                f"{free / 1e6:,.0f} MB are free there",
                remedy="Make room, or restore into a directory on another disk.",
                needed=size,
                free=free,
            )
