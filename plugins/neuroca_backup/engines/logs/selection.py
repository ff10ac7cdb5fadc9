"""What a restore brings back: the tree of one backup of the chain, or a part, or more than it."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from neuroca_backup.engines import Restorable
from neuroca_backup.engines.logs import CATEGORIES, state
from neuroca_backup.engines.logs.state import Entry
from neuroca_backup.errors import ConfigurationError, SpoolError
from neuroca_backup.model.manifest import Manifest
from neuroca_backup.trees import entries
from neuroca_backup.trees.entries import Kind, order

EVERYTHING = "everything"
_NAME_BYTES = 255  # the longest name of a file on Linux
_WORDS = f"`{EVERYTHING}`, {', '.join(CATEGORIES)}, or an absolute path or glob"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which entries are wanted.

    `links` is how many backups of the chain are read, the last of them giving the state;
    `everything` adds content that has ended; without `categories` and `patterns` all is wanted.
    """

    links: int
    everything: bool
    categories: frozenset[str]
    patterns: tuple[str, ...]

    @property
    def partial(self) -> bool:
        """Whether only a part of the tree is wanted."""
        return bool(self.categories or self.patterns)

    def manifest(self, backup: Restorable) -> Manifest:
        """Return the manifest of the backup whose state is restored."""
        return backup.chain[self.links - 1]


def of(backup: Restorable) -> Selection:
    """Return what `backup.until` and `backup.only` ask for, as far as manifests tell.

    A log has no times of its own, so a moment means the newest backup that is not after it.

    Raises:
        ConfigurationError: The chain begins after the moment, or a word means nothing.
    """
    links = len(backup.chain)
    if backup.until is not None:
        links = sum(one.dump.consistent_at <= backup.until for one in backup.chain)
        if not links:
            raise ConfigurationError(
                f"The chain of {backup.last.backup_id} begins at {_second(backup.full)}, after "
                f"{backup.until.isoformat(timespec='seconds')}",
                remedy="Choose a later moment, or an older backup.",
                value=backup.until.isoformat(),
            )
    for word in backup.only:
        if word not in {EVERYTHING, *CATEGORIES} and not word.startswith("/"):
            raise ConfigurationError(
                f"A backup of logs has no part {word!r}",
                remedy=f"Write {_WORDS}.",
                value=word,
            )
    selection = Selection(
        links=links,
        everything=EVERYTHING in backup.only,
        categories=frozenset(word for word in backup.only if word in CATEGORIES),
        patterns=tuple(word for word in backup.only if word.startswith("/")),
    )
    manifest = selection.manifest(backup)
    missing = selection.categories - manifest.dump.facts["categories"].keys()
    if missing and not selection.everything:
        has = ", ".join(manifest.dump.facts["categories"])
        raise ConfigurationError(
            f"{manifest.backup_id} holds no {' and no '.join(sorted(missing))} logs",
            remedy=f"It holds {has}; `{EVERYTHING}` adds those that have ended.",
            value=sorted(missing),
        )
    return selection


def note(backup: Restorable, selection: Selection) -> str:
    """Return which state is restored where a moment was asked for, "" where none was."""
    if backup.until is None:
        return ""
    manifest = selection.manifest(backup)
    said = (
        f"The state of {manifest.backup_id}, of {_second(manifest)}, is restored: the newest that "
        f"is not after {backup.until.isoformat(timespec='seconds')}"
    )
    if selection.links < len(backup.chain):
        later = backup.chain[selection.links]
        said += f"; the next is {later.backup_id}, of {_second(later)}"
    return f"{said}."


def _second(manifest: Manifest) -> str:
    return manifest.dump.consistent_at.isoformat(timespec="seconds")


def read(backup: Restorable, selection: Selection) -> list[Entry]:
    """Return the wanted entries in their order, with the folders above them.

    What has ended gets a name that says so, and further names of a file become hard links.

    Raises:
        ConfigurationError: Nothing is selected.
        DamagedError: The state is not one.
        SpoolError: It was not fetched.
    """
    with _opened(backup.folders[selection.links - 1] / state.NAME) as stream:
        wanted = _wanted(selection)
        found = [
            _renamed(one)
            for one in state.read(stream)
            if (selection.everything or not one.last_seen) and wanted(one)
        ]
    files = [one for one in found if one.content is not None]
    if not files:
        raise ConfigurationError(
            f"Nothing in {selection.manifest(backup).backup_id} is called {', '.join(backup.only)}",
            remedy=f"Write {_WORDS} as it was when the backup was made.",
            value=list(backup.only),
        )
    if selection.partial:
        found = list(_without_empty(found))
    return list(_linked(sorted(found, key=lambda one: order(one.path))))


def _wanted(selection: Selection) -> Callable[[Entry], bool]:
    """Return what tells whether an entry is selected; all where nothing is named."""
    compiled = [re.compile(fnmatch.translate(one.rstrip("/"))) for one in selection.patterns]

    def wanted(entry: Entry) -> bool:
        # Folders are sorted out afterwards: those that lead to something are needed.
        if not selection.partial or entry.tree.kind is Kind.DIRECTORY:
            return True
        if entry.tree.section in selection.categories:
            return True
        path = f"/{entry.path}"
        return any(one.match(path) or _leads_to(one, path) for one in compiled)

    return wanted


def _leads_to(pattern: re.Pattern[str], path: str) -> bool:
    """Return whether a folder above `path` matches."""
    return any(pattern.match(str(parent)) for parent in Path(path).parents)


def _without_empty(found: list[Entry]) -> Iterator[Entry]:
    """Yield the entries without the folders that lead to nothing of the selection."""
    needed = {
        str(parent)
        for one in found
        if one.tree.kind is not Kind.DIRECTORY
        for parent in Path(one.path).parents
    }
    return (one for one in found if one.tree.kind is not Kind.DIRECTORY or one.path in needed)


def _renamed(entry: Entry) -> Entry:
    """Return an entry of what has ended under a name that tells when it was seen last."""
    if not entry.last_seen:
        return entry
    moment = datetime.fromisoformat(entry.last_seen).astimezone(UTC)
    mark = f".ended-{moment.strftime('%Y%m%dT%H%M%SZ')}-{entry.tree.sha256[:8]}"
    folder, slash, name = entry.path.rpartition("/")
    while len((name + mark).encode("utf-8", "surrogateescape")) > _NAME_BYTES:
        name = name[:-1]
    return replace(entry, tree=replace(entry.tree, path=f"{folder}{slash}{name}{mark}"))


def _linked(found: list[Entry]) -> Iterator[Entry]:
    """Yield entries in their order, a further name of one file as a hard link to the first."""
    first: dict[tuple[int, int], str] = {}
    for one in found:
        identity = (one.tree.device, one.tree.inode)
        if not one.is_file:
            yield one
        elif identity in first:
            link = entries.Entry(
                path=one.path,
                kind=Kind.HARDLINK,
                target=first[identity],
                mode=one.tree.mode,
                uid=one.tree.uid,
                gid=one.tree.gid,
                mtime_ns=one.tree.mtime_ns,
                section=one.tree.section,
            )
            yield Entry(link)
        else:
            first[identity] = one.path
            yield one


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise SpoolError(
            f"{path} is missing",
            remedy="Run the restore from its fetch step on.",
            path=str(path),
        ) from None
