"""Restoring models: into a directory, or each to its own root, by a copy beside and a rename."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from neuroca_backup.engines import Difference, Restorable, RestoreTarget
from neuroca_backup.errors import ConfigurationError
from neuroca_backup.trees import placing, restoring
from neuroca_backup.trees.archive import OpenMember, read_index, require_facts
from neuroca_backup.trees.comparing import changes
from neuroca_backup.trees.entries import Entry, is_path, order, shown, within
from neuroca_backup.trees.placing import Selection, Unit
from neuroca_backup.trees.totals import Totals

# Differences are told one by one; beyond these it is another tree.
_MOST_DIFFERENCES = 1_000


def preflight(backup: Restorable, target: RestoreTarget) -> Sequence[str]:
    """Refuse parts that the backup cannot have, and places that may not be replaced.

    Raises:
        ConfigurationError: `only` names something outside the models of the backup.
        TargetRefusedError: A place holds something and may not be replaced.
    """
    selection = _selection(backup)
    directory = target.endpoint.directory
    roots = backup.last.dump.facts["models"]
    places = (
        [directory]
        if directory is not None
        else [Path(root) / model for model, root in roots.items() if _touches(selection, model)]
    )
    units = [Unit("", place, place) for place in places]
    placing.refuse(units, replace=target.replace)
    return [f"{shown(str(place))} is replaced and kept" for place in places if place.exists()]


def load(backup: Restorable, target: RestoreTarget) -> Sequence[str]:
    """Make the copies; return notes of what could not be set as it was."""
    opened, selection = _opener(backup), _selection(backup)
    _require_found(opened, selection)
    units = _units(backup, target, opened, selection)
    placing.refuse(units, replace=target.replace)
    return restoring.build(opened, units, selection, prefix="")


def compare(backup: Restorable, target: RestoreTarget) -> Sequence[Difference]:
    """Return how the copies, wherever they are by now, differ from the backup."""
    opened, selection = _opener(backup), _selection(backup)
    units = _units(backup, target, opened, selection)
    totals = Totals()

    def entries() -> Iterator[tuple[Entry, BinaryIO | None]]:
        for entry in read_index(opened):
            totals.add(entry)
            yield entry, None

    found = [
        Difference(f"{aspect} of {shown(change.path)}", expected, actual)
        for change in changes(entries(), units, selection, built=True)
        for aspect, (expected, actual) in change.aspects.items()
    ]
    require_facts(totals, backup.last.dump.facts)
    return found


def publish(backup: Restorable, target: RestoreTarget) -> Sequence[str]:
    """Move the copies into place; return a note of everything that is kept beside."""
    opened = _opener(backup)
    units = _units(backup, target, opened, _selection(backup))
    return placing.publish(units, replace=target.replace)


def _units(
    backup: Restorable, target: RestoreTarget, opened: OpenMember, selection: Selection
) -> tuple[Unit, ...]:
    mark = backup.last.attempt
    directory = target.endpoint.directory
    if directory is not None:
        return placing.into_directory(directory, mark)
    roots: dict[str, list[str]] = {}
    for model, root in backup.last.dump.facts["models"].items():
        roots.setdefault(root, []).append(model)
    units: list[Unit] = []
    for root, models in roots.items():
        below = (one for one in read_index(opened) if one.path.split("/", 1)[0] in models)
        units += placing.into_places(below, selection, mark, base=Path(root))
    return tuple(sorted(units, key=lambda unit: order(unit.top)))


def _selection(backup: Restorable) -> Selection:
    models = backup.last.dump.facts["models"]
    for path in backup.only:
        if not is_path(path) or path.split("/", 1)[0] not in models:
            raise ConfigurationError(
                f"{shown(path)} is not in {backup.last.backup_id}",
                remedy="Write the name of a model, or a path that begins with it. The backup "
                f"has: {', '.join(shown(name) for name in islice(models, 20))}.",
                value=shown(path),
            )
    return Selection(paths=backup.only)


def _touches(selection: Selection, model: str) -> bool:
    return selection.everything or any(within(path, model) for path in selection.paths)


def _require_found(opened: OpenMember, selection: Selection) -> None:
    """Raise `ConfigurationError` for a chosen path that the backup does not have."""
    missing = set(selection.paths)
    if missing:
        for entry in read_index(opened):
            missing.discard(entry.path)
    if missing:
        raise ConfigurationError(
            f"The backup has no {shown(min(missing))}",
            remedy="Look for the path in its index: `neuroca-backup decrypt` writes the member "
            "index.jsonl to a file.",
            value=shown(min(missing)),
        )


def _opener(backup: Restorable) -> OpenMember:
    folder = backup.folders[-1]
    return lambda name: (folder / name).open("rb")
