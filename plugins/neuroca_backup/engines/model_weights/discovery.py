"""Which models there are, and which of their files belong to a backup."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from neuroca_backup.engines.model_weights import Options
from neuroca_backup.errors import ConfigurationError, EmptySourceError, NotFoundError
from neuroca_backup.trees.entries import shown
from neuroca_backup.trees.placing import is_own
from neuroca_backup.trees.totals import Remarks
from neuroca_backup.trees.walking import Found, matching, readable, walk

log = logging.getLogger(__name__)


def models(options: Options) -> Mapping[str, Path]:
    """Return the root of every model, by the model's name, sorted by names.

    A model is a directory or a file in a root. What is hidden or excluded is none, nor are links
    and what a restore has kept.

    Raises:
        NotFoundError: A root does not exist, or there is no model of the one name that was asked.
        ConfigurationError: Two roots have a model of the same name.
        EmptySourceError: There is no model at all.
    """
    found: dict[str, Path] = {}
    for root in map(Path, options.roots):
        for name in _in_root(root, matching(options.exclude)):
            if name in found:
                raise ConfigurationError(
                    f"The model {shown(name)} is in {found[name]} and in {root}",
                    remedy="Rename one of them, or give each root a source of its own.",
                    value=shown(name),
                )
            found[name] = root
    if options.model:
        if options.model not in found:
            raise NotFoundError(
                f"There is no model {shown(options.model)} in {', '.join(options.roots)}",
                remedy=f"There are: {_names(found)}.",
                value=shown(options.model),
            )
        return {options.model: found[options.model]}
    if not found:
        raise EmptySourceError(
            f"There is no model in {', '.join(options.roots)}",
            remedy="Correct `roots`, or mount the disk that they are on.",
            value=", ".join(options.roots),
        )
    return dict(sorted(found.items()))


def files(chosen: Mapping[str, Path], options: Options, *, remarks: Remarks) -> Iterator[Found]:
    """Yield all that belongs to the `chosen` models, by paths that begin with the model's name.

    A file's section is the first of `checkpoints`, `weights` and `artefacts` that it matches.
    """
    excluded = matching(options.exclude)
    section_of = _sections(options)
    for name, root in chosen.items():
        for found in walk(root, {name: ""}, remarks=remarks, excluded=excluded):
            if stat.S_ISDIR(found.status.st_mode):
                yield found
            elif section := section_of(found.path):
                yield replace(found, section=section)


def _sections(options: Options) -> Callable[[str], str]:
    patterns = {
        "checkpoints": matching(options.checkpoints),
        "weights": matching(options.weights),
        "artefacts": matching(options.artefacts),
    }
    return lambda path: next((name for name, fits in patterns.items() if fits(path)), "")


def _in_root(root: Path, excluded: Callable[[str], bool]) -> list[str]:
    try:
        with readable(str(root)), os.scandir(root) as listed:
            entries = sorted(listed, key=lambda entry: entry.name)
    except FileNotFoundError:
        raise NotFoundError(
            f"The root {root} does not exist",
            remedy="Correct `roots`, or mount the disk that it is on.",
            path=str(root),
        ) from None
    names = []
    for entry in entries:
        if entry.name.startswith(".") or is_own(entry.name) or excluded(entry.name):
            continue
        if entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False):
            names.append(entry.name)
        else:
            log.info("%s is neither a directory nor a file, so no model", shown(entry.path))
    return names


def _names(found: Mapping[str, Path]) -> str:
    most = 20
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(shown(name) for name in sorted(found)[:most]) + more or "none"
