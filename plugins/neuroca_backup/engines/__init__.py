"""Engines: how a kind of source is dumped, checked, restored and compared. One file each."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Protocol, TypeVar, runtime_checkable

from pydantic import BaseModel, ValidationError

from neuroca_backup import registry
from neuroca_backup.errors import ConfigurationError
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.manifest import Dump, Manifest

# The sandbox of engines whose sources are files of this machine: their endpoints have the kind
# `files`, their sources no connection, and they restore to a directory.
DIRECTORY = "directory"


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

    def reuse(self, name: str, *, of: str) -> bool:
        """Let the member `name` be the member `of` of the parent, unchanged: no byte is stored.

        Only for engines that are `Reusing`. Returns False, having done nothing, where the parent
        has no such member or its bytes are due to be stored again: write the member then.
        """
        ...


@dataclass(frozen=True, slots=True)
class Parent:
    """The backup that a new one continues, or refers to; `open` gives a member's original bytes.

    Every byte is checked while it is read, and what was left unread when the block ends.
    """

    manifest: Manifest
    open: Callable[[str], AbstractContextManager[BinaryIO]]


@dataclass(frozen=True, slots=True)
class Restorable:
    """What is restored: a full backup and the incremental ones after it; all of them or a part.

    `chain` begins with the full backup and ends with the chosen one. `folders` are where the
    members of each lie, in the same order; empty before they are fetched. `until` (aware) is the
    last moment to be restored, None for the end of the chain. `only` names parts in the engine's
    own words, () for everything. `work` is a private folder for throwaway servers of the engine's
    own (`sandbox.launch`); whoever drives the restore stops them and removes it at the end.
    """

    chain: tuple[Manifest, ...]
    work: Path
    folders: tuple[Path, ...] = ()
    until: datetime | None = None
    only: tuple[str, ...] = ()

    @property
    def full(self) -> Manifest:
        """The full backup that everything else builds on."""
        return self.chain[0]

    @property
    def last(self) -> Manifest:
        """The backup that was chosen."""
        return self.chain[-1]


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

    `default_port` is 0 for an engine of several kinds of servers: each kind has its own engine.
    `sandbox` is the kind of throwaway server that takes its backups, "" where there is none.
    `incremental` says whether a backup may continue another one, and a restore may stop at a
    moment between two. `keeps` says whether a restore in place leaves what it replaces beside,
    under another name; where it does not, the target is backed up before it is overwritten.
    """

    kind: ClassVar[str]
    default_port: ClassVar[int]
    sandbox: ClassVar[str]
    incremental: ClassVar[bool]
    keeps: ClassVar[bool]

    def options(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return `given` (a source's `options` in backup.yaml) checked and filled with defaults.

        Raises:
            ConfigurationError: An option is unknown or has an impossible value.
        """
        ...

    def probe(self, endpoint: Endpoint) -> str:
        """Log in and return the server's version; raise what keeps a dump or restore from work."""
        ...

    def dump(
        self,
        endpoint: Endpoint,
        sink: Sink,
        options: Mapping[str, Any],
        parent: Parent | None = None,
    ) -> Dump:
        """Write a consistent dump of the source to `sink`; with `parent`, what came after it.

        `consistency["time"]` of the result is the moment, in ISO format with its offset, whose
        state a restore of it brings back.

        Raises:
            ChainBrokenError: The source no longer has all that came after the parent.
        """
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

    def preflight(self, backup: Restorable, target: RestoreTarget) -> Sequence[str]:
        """Refuse an impossible restore before anything is touched; return notes for the report.

        Raises:
            ConfigurationError: This engine cannot select such a part, or the backup has none.
            IncompatibleVersionError: The target's server or our tools cannot take this backup.
            TargetRefusedError: The target holds data and may not be replaced.
        """
        ...

    def load(self, backup: Restorable, target: RestoreTarget) -> Sequence[str]:
        """Load the members into the target; return notes for the report. A repeat starts clean.

        What the target held stays as it is until `publish`, or is kept beside.
        """
        ...

    def compare(self, backup: Restorable, target: RestoreTarget) -> Sequence[Difference]:
        """Return every difference between the loaded copy and the manifests' facts."""
        ...

    def publish(self, backup: Restorable, target: RestoreTarget) -> Sequence[str]:
        """Put the compared copy in its final place; return notes (what was kept, and where).

        A repeat changes nothing more and returns no notes.
        """
        ...


@dataclass(frozen=True, slots=True)
class Question:
    """A question of the user's own to a restored copy: what it is called, and the file's text."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one question: how long it took in seconds, and what is wrong, () for nothing.

    `unasked` says why it was not asked, "" where it was; such an answer proves nothing.
    """

    question: str
    seconds: float = 0.0
    problems: tuple[str, ...] = ()
    unasked: str = ""


@runtime_checkable
class Examining(Protocol):
    """An engine that can ask a server whether what it holds works, and how quickly.

    It is asked when a backup is taken, of the source, and after a restore, of what was restored.
    """

    def examine(
        self, endpoint: Endpoint, facts: Mapping[str, Any], *, only: Sequence[str] = ()
    ) -> Sequence[Answer]:
        """Ask what `facts` (of a dump) describe, or the parts `only` of it; change nothing.

        Every question is bounded in time; one that cannot be answered is a problem of its own.
        """
        ...


@runtime_checkable
class Asking(Protocol):
    """An engine that takes questions of the user's own, in files that end in `question_suffix`."""

    question_suffix: ClassVar[str]

    def ask(
        self,
        endpoint: Endpoint,
        facts: Mapping[str, Any],
        questions: Sequence[Question],
        *,
        only: Sequence[str] = (),
    ) -> Sequence[Answer]:
        """Ask `questions`, as `Examining.examine` asks the engine's own."""
        ...


@runtime_checkable
class Referring(Protocol):
    """An engine that can say which values a field has in a backup, to hold sources to each other.

    It reads what was fetched, which is what was loaded and compared, and no server.
    """

    def values(self, backup: Restorable, *, place: str, field: str) -> Iterator[str]:
        """Yield every value of `field` (a path with dots) of all that is at `place`, as text.

        `place` is a collection, or a pattern of keys. A value may come several times.

        Raises:
            ConfigurationError: The backup has no such place.
        """
        ...


@runtime_checkable
class Reusing(Protocol):
    """An engine whose backups may refer to members of an earlier one instead of storing them.

    Where `reuses` is True, `dump` gets as its parent the newest backup that was found whole in
    every store, and may say `Sink.reuse` of what has not changed since. The new backup is a full
    one all the same: a restore of it reads what it names, wherever that lies.
    """

    reuses: ClassVar[bool]


@runtime_checkable
class Fingerprinting(Protocol):
    """An engine that can say cheaply whether its source is still what the last backup holds.

    Its `dump` puts the fingerprint of what it has dumped into `facts["fingerprint"]`.
    """

    def fingerprint(self, endpoint: Endpoint, options: Mapping[str, Any]) -> str:
        """Return the SHA-256 (hex) over what a backup would hold: contents and metadata, no times.

        Raises what `dump` raises where the source cannot be read.
        """
        ...


@runtime_checkable
class Dividing(Protocol):
    """An engine whose source is many things, each backed up and restored by itself."""

    def parts(self, endpoint: Endpoint, options: Mapping[str, Any]) -> Sequence[str]:
        """Return the true names of all things that the source has now, in a stable order."""
        ...

    def part(self, options: Mapping[str, Any], name: str) -> Mapping[str, Any]:
        """Return the options with which the thing called `name` alone is dumped."""
        ...


@runtime_checkable
class Previewing(Protocol):
    """An engine whose preflight wants to see small members of the backup, such as an index.

    The `folders` of what is to be restored then hold the members that `preview` names, and no
    others.
    """

    preview: ClassVar[tuple[str, ...]]


OptionsModel = TypeVar("OptionsModel", bound=BaseModel)


def checked_options(
    model: type[OptionsModel], given: Mapping[str, Any], *, kind: str
) -> OptionsModel:
    """Return `given`, the options of a source of the engine `kind`, as a `model`.

    Raises:
        ConfigurationError: One is unknown or impossible; names it, its value and all there are.
    """
    try:
        return model.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(map(str, ("options", *first["loc"])))
        raise ConfigurationError(
            f"{path} of a {kind} source: {first['msg']} (given: {first['input']!r})",
            remedy=f"Known options: {', '.join(model.model_fields)}.",
            path=path,
            value=first["input"],
        ) from None


def named(kind: str) -> Engine:
    """Return the engine called `kind` in backup.yaml and in manifests.

    Raises:
        ConfigurationError: There is no such engine; lists those that exist.
    """
    found: Engine = registry.load(sys.modules[__name__], kind, "ENGINE")
    return found
