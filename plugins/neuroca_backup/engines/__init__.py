"""Engines: how a kind of source is dumped, checked, restored and compared. One file each."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Protocol

from neuroca_backup import registry
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.manifest import Dump, Manifest


class Sink(Protocol):
    """Where an engine puts the members of a dump."""

    def member(self, name: str) -> AbstractContextManager[BinaryIO]:
        """Open a member for writing; it counts once the block has ended without an error."""
        ...

    def tree(self, name: str) -> AbstractContextManager[Path] | None:
        """Give a vendor tool the path of a directory that it will create itself, or None.

        When the block ends every file below it is a member `<name>/<relative path>`. None means
        that nothing in clear may touch a disk: the engine then streams through `member`.
        """
        ...


@dataclass(frozen=True, slots=True)
class RestoreTarget:
    """Where to restore to. `replace` allows to take the place of what is there, saving it first."""

    endpoint: Endpoint
    replace: bool = False


@dataclass(frozen=True, slots=True)
class Difference:
    """One way in which a restored copy differs from its manifest."""

    what: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.what}: expected {self.expected}, found {self.found}"


class Engine(Protocol):
    """One kind of source. Engines keep no state; each method may be called in any process.

    `sandbox` is the kind of throwaway server that takes its backups, "" where there is none.
    """

    kind: ClassVar[str]
    default_port: ClassVar[int]
    sandbox: ClassVar[str]

    def options(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return `given` (a source's `options` in backup.yaml) checked and filled with defaults.

        Raises:
            ConfigurationError: An option is unknown or has an impossible value.
        """
        ...

    def probe(self, endpoint: Endpoint) -> str:
        """Log in and return the server's version; raise what keeps a dump or restore from work."""
        ...

    def dump(self, endpoint: Endpoint, sink: Sink, options: Mapping[str, Any]) -> Dump:
        """Write a consistent dump of the source to `sink`."""
        ...

    def check(self, manifest: Manifest, open_member: Callable[[str], BinaryIO]) -> None:
        """Read the structure of a dump without a server (level PARSED).

        Raises:
            DamagedError: A member does not have the structure it should have.
        """
        ...

    def summary(self, manifest: Manifest) -> str:
        """Return in a few words what the backup holds, e.g. `2 databases, 11 tables, 9 rows`."""
        ...

    def preflight(self, manifest: Manifest, target: RestoreTarget) -> Sequence[str]:
        """Refuse an impossible restore before anything is touched; return notes for the report.

        Raises:
            IncompatibleVersionError: The target's server or our tools cannot take this backup.
            TargetRefusedError: The target holds data and may not be replaced.
        """
        ...

    def load(self, manifest: Manifest, files: Path, target: RestoreTarget) -> Sequence[str]:
        """Load the members, files below `files`, into the target; return notes for the report.

        What the target held is kept beside until `compare` has passed.
        """
        ...

    def compare(self, manifest: Manifest, target: RestoreTarget) -> Sequence[Difference]:
        """Return every difference between the loaded copy and the manifest's facts."""
        ...

    def publish(self, manifest: Manifest, files: Path, target: RestoreTarget) -> Sequence[str]:
        """Put the compared copy in its final place; return notes (what was kept, and where)."""
        ...


def named(kind: str) -> Engine:
    """Return the engine called `kind` in backup.yaml and in manifests.

    Raises:
        ConfigurationError: There is no such engine; lists those that exist.
    """
    found: Engine = registry.load(sys.modules[__name__], kind, "ENGINE")
    return found
