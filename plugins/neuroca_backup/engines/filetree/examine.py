"""Questions to files: can each be read as what its name says, and does it keep to its schema?

The same is asked while a backup is made, and what is wrong then is kept among its facts: a
restored copy is not blamed for what its source was. The facts name so many paths and no more.
"""

from __future__ import annotations

import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from neuroca_backup.engines import Answer
from neuroca_backup.engines.filetree import listing, schemas
from neuroca_backup.engines.filetree.listing import ROOT
from neuroca_backup.engines.filetree.parsing import kind_of, problem_of
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.trees.entries import Entry, Kind, shown
from neuroca_backup.trees.placing import Selection
from neuroca_backup.trees.reading import Opened, stable
from neuroca_backup.trees.totals import Remarks
from neuroca_backup.trees.walking import Found, matching, walk

FACT = "unsound"  # of a dump: `count`, and the first `paths`
_KNOWN = 100  # paths that a manifest names
_TOLD = 5
_SECONDS = 60.0
_LARGEST = 2 * 1024 * 1024  # bytes; nobody writes so much by hand, and YAML is slow


class Inspection:
    """Looks into one file after the other; every path is relative to /, as the index has it."""

    def __init__(self, named: Mapping[str, str], *, base: Path | None = None) -> None:
        self._schemas = schemas.read(named, base=base)
        self._deadline = time.monotonic() + _SECONDS
        self.looked = 0
        self.unsound: dict[str, str] = {}  # of the first `_KNOWN` paths
        self.count = 0
        self.known: list[str] = []
        self.large: list[str] = []
        self.late: list[str] = []

    def look(
        self,
        path: str,
        size: int,
        content: Callable[[], bytes],
        *,
        known: frozenset[str] = frozenset(),
    ) -> None:
        """Look into a file of `size` bytes, unless its name says nothing of what it is."""
        if not kind_of(path):
            return
        if size > _LARGEST:
            _few(self.large, path)
        elif time.monotonic() > self._deadline:
            _few(self.late, path)
        else:
            self.looked += 1
            problem = self._problem(path, content())
            if problem and path in known:
                _few(self.known, path)
            elif problem:
                self.count += 1
                if len(self.unsound) < _KNOWN:
                    self.unsound[path] = problem

    def entry(self, entry: Entry, content: bytes | None) -> None:
        """Look into what a dump has just written."""
        if entry.kind is Kind.FILE:
            self.look(entry.path, entry.size, lambda: content or b"")

    def facts(self) -> dict[str, Any]:
        """Return what a restore has to know of the source, however much is wrong there."""
        return {FACT: {"count": self.count, "paths": sorted(self.unsound)}}

    def problems(self) -> tuple[str, ...]:
        """Return the first problems, and how many more there are."""
        told = [
            f"/{shown(path)}: {problem}" for path, problem in list(self.unsound.items())[:_TOLD]
        ]
        more = self.count - len(told)
        return (*told, *([f"and {more:,} more files"] if more else []))

    def answers(self, seconds: float) -> Iterator[Answer]:
        """Give what came of it, what was not looked at included."""
        question = "files are what their names say"
        if self.looked:
            yield Answer(question, seconds, self.problems())
        else:
            yield Answer(question, unasked="none of them is YAML, JSON, TOML or .env by its name")
        for paths, why in (
            (self.known, "was not sound when it was backed up, and is the same"),
            (self.large, f"is larger than {_LARGEST // 1024 // 1024} MB"),
            (self.late, f"was not reached within {_SECONDS:.0f} s"),
        ):
            if paths:
                yield Answer("files not asked", unasked=f"{_listed(paths)} {why}")
        for schema in self._schemas:
            if schema.problem:
                yield Answer(f"schema {schema.file}", problems=(schema.problem,))
            elif schema.absent:
                yield Answer(f"schema {schema.file}", unasked="it is not on this machine")

    def _problem(self, path: str, content: bytes) -> str:
        problem = problem_of(path, content)
        if problem or kind_of(path) not in {"YAML", "JSON"}:
            return problem
        found = (
            schema.problem_of(path, content)
            for schema in self._schemas
            if schema.validator is not None and schema.matches(path)
        )
        return next(filter(None, found), "")


def examine(endpoint: Endpoint, facts: Mapping[str, Any], selection: Selection) -> Sequence[Answer]:
    """Look into every file that was restored, or of the source; see the protocol."""
    begun = time.monotonic()
    inspection = Inspection(facts.get("schemas", {}), base=endpoint.directory)
    known = frozenset(facts.get(FACT, {}).get("paths", ()))
    seen: set[tuple[int, int]] = set()  # of files with several names alone: the first counts
    for found in _restored(endpoint, facts, selection):
        status = found.status
        if not stat.S_ISREG(status.st_mode):
            continue
        if status.st_nlink > 1:
            inode = (status.st_dev, status.st_ino)
            if inode in seen:
                continue
            seen.add(inode)
        try:
            inspection.look(found.path, status.st_size, partial(stable, found, _all), known=known)
        except FileNotFoundError:
            continue  # of a source in use; a restored copy was compared
    return list(inspection.answers(round(time.monotonic() - begun, 4)))


def _all(opened: Opened) -> bytes:
    content = opened.stream.read()
    opened.confirm(len(content))
    return content


def _restored(
    endpoint: Endpoint, facts: Mapping[str, Any], selection: Selection
) -> Iterator[Found]:
    remarks = Remarks("/")
    directory = endpoint.directory
    if directory is not None:
        # It was empty before, so that all of it was restored.
        yield from walk(directory, {one.name: "" for one in directory.iterdir()}, remarks=remarks)
        return
    excluded = matching(facts["exclude"])
    for found in walk(ROOT, listing.there(facts), remarks=remarks, excluded=excluded):
        if selection.accepts(found):
            yield found


def _few(paths: list[str], path: str) -> None:
    """Remember `path`; of more than can be told one stands for the rest."""
    if len(paths) <= _TOLD:
        paths.append(path)


def _listed(paths: Sequence[str]) -> str:
    told = ", ".join(f"/{shown(path)}" for path in paths[:_TOLD])
    return told + (" and more" if len(paths) > _TOLD else "")
