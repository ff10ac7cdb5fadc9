"""Logs: a full backup holds every file, those after it only what no earlier one holds."""

from __future__ import annotations

import os.path
import platform
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, BinaryIO, ClassVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict

from neuroca_backup.engines import (
    DIRECTORY,
    Difference,
    Engine,
    Parent,
    Restorable,
    RestoreTarget,
    Sink,
    checked_options,
)
from neuroca_backup.engines.logs.listing import Root
from neuroca_backup.errors import ConfigurationError
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.manifest import Dump, Manifest

# ruff: noqa: PLC0415 - what reads and writes files is imported when there is work for it

CATEGORIES = ("application", "metrics", "audit", "performance")


def _absolute(pattern: str) -> str:
    if not pattern.startswith("/") or ".." in pattern.split("/"):
        raise ValueError("is no absolute path or glob, or has `..` in it")
    return os.path.normpath(pattern)


Pattern = Annotated[str, AfterValidator(_absolute)]


class LogPath(BaseModel):
    """A path or glob; one that is `optional` may match nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Pattern
    optional: bool = False


def _spelled_out(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


LogPaths = tuple[Annotated[LogPath, BeforeValidator(_spelled_out)], ...]


class Options(BaseModel):
    """`options` of a source of this engine.

    `application`, `metrics`, `audit` and `performance` list absolute paths or globs (`*`, `?`,
    `[...]` within a name, `**` for any folders), each a text or `{path: ..., optional: true}`; a
    directory stands for everything below it. `exclude` lists globs to leave out: of whole paths,
    in which `*` also stands for `/`, or, without a `/`, of names.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    application: LogPaths = (LogPath(path="/var/log/neuroca"),)
    metrics: LogPaths = ()
    audit: LogPaths = ()
    performance: LogPaths = ()
    exclude: tuple[str, ...] = ()

    @property
    def roots(self) -> tuple[Root, ...]:
        """Every listed path with its category."""
        return tuple(
            Root(category=category, pattern=one.path, optional=one.optional)
            for category in CATEGORIES
            for one in getattr(self, category)
        )


class LogsEngine:
    """See `neuroca_backup.engines.Engine`."""

    kind: ClassVar[str] = "logs"
    default_port: ClassVar[int] = 0
    sandbox: ClassVar[str] = DIRECTORY
    incremental: ClassVar[bool] = True
    keeps: ClassVar[bool] = True

    def options(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the options, checked and filled."""
        options = checked_options(Options, given, kind=self.kind)
        if not options.roots:
            raise ConfigurationError(
                f"options.{CATEGORIES[0]} of a logs source is empty, and so are the other lists",
                remedy=f"Write at least one path below one of {', '.join(CATEGORIES)}.",
                path=f"options.{CATEGORIES[0]}",
                value=[],
            )
        return options.model_dump()

    def probe(self, endpoint: Endpoint) -> str:  # noqa: ARG002 - there is one machine
        """Return the release of the kernel, e.g. `6.1.0-18-amd64`."""
        return platform.release()

    def dump(
        self,
        endpoint: Endpoint,  # noqa: ARG002 - as above
        sink: Sink,
        options: Mapping[str, Any],
        parent: Parent | None = None,
    ) -> Dump:
        """Write all files, with `parent` the bytes that its chain lacks, and the tree's state."""
        from neuroca_backup.engines.logs import dump

        return dump.dump(sink, Options.model_validate(options), parent)

    def check(self, manifest: Manifest, open_member: Callable[[str], BinaryIO]) -> None:
        """Compare every piece with its digest, and the state of the tree with the facts."""
        from neuroca_backup.engines.logs import check

        check.check(manifest, open_member)

    def summary(self, manifest: Manifest) -> str:
        """Return what the backup holds, e.g. `12 files, 3,456 bytes, 78 lines; 90 bytes new`."""
        facts = manifest.dump.facts
        total = {
            word: sum(one[word] for one in facts["categories"].values())
            for word in ("files", "bytes", "lines")
        }
        counted = ", ".join(f"{count:,} {word}" for word, count in total.items())
        return f"{counted}; {facts['new_bytes']:,} bytes of them new"

    def preflight(self, backup: Restorable, target: RestoreTarget) -> Sequence[str]:
        """Refuse a target that holds files, a part that there is not, a disk without space."""
        from neuroca_backup.engines.logs import restore

        return restore.preflight(backup, target)

    def load(self, backup: Restorable, target: RestoreTarget) -> Sequence[str]:
        """Write the tree beside its place."""
        from neuroca_backup.engines.logs import restore

        return restore.load(backup, target)

    def compare(self, backup: Restorable, target: RestoreTarget) -> Sequence[Difference]:
        """Compare every file's bytes and metadata with the state of the tree."""
        from neuroca_backup.engines.logs import restore

        return restore.compare(backup, target)

    def publish(self, backup: Restorable, target: RestoreTarget) -> Sequence[str]:
        """Rename the tree into its place, keeping what was there."""
        from neuroca_backup.engines.logs import restore

        return restore.publish(backup, target)


ENGINE: Engine = LogsEngine()
