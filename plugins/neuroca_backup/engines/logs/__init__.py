"""Logs: a full backup holds every file, those after it only what no earlier one holds."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO, ClassVar

from pydantic import BaseModel, ConfigDict, field_validator, model_validator

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
from neuroca_backup.model.endpoint import FILES, Endpoint
from neuroca_backup.model.manifest import Dump, Manifest
from neuroca_backup.trees.entries import is_path

# ruff: noqa: PLC0415 - what reads and writes files is imported when there is work for it

CATEGORIES = ("application", "metrics", "audit", "performance")


class Listed(BaseModel):
    """An absolute path or glob; one that is `optional` may match nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    optional: bool = False

    @model_validator(mode="before")
    @classmethod
    def _may_be_the_path_alone(cls, given: Any) -> Any:
        return {"path": given} if isinstance(given, str) else given

    @field_validator("path")
    @classmethod
    def _is_absolute(cls, path: str) -> str:
        trimmed = path.rstrip("/")
        if not path.startswith("/") or not is_path(trimmed[1:]):
            raise ValueError(
                "a path is absolute, below / and has no `.`, `..` or `//`, such as /var/log/neuroca"
            )
        return trimmed


class Options(BaseModel):
    """`options` of a source of this engine.

    `application`, `metrics`, `audit` and `performance` list absolute paths or globs (`*`, `?`,
    `[...]` within a name, `**` for any folders), each a text or `{path: ..., optional: true}`; a
    directory stands for everything below it. `exclude` lists globs to leave out: of whole paths,
    in which `*` also stands for `/`, or, without a `/`, of names.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    application: tuple[Listed, ...] = ()
    metrics: tuple[Listed, ...] = ()
    audit: tuple[Listed, ...] = ()
    performance: tuple[Listed, ...] = ()
    exclude: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _lists_something(self) -> Options:
        if not self.roots:
            raise ValueError(f"list at least one path under one of {', '.join(CATEGORIES)}")
        return self

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
    preview: ClassVar[tuple[str, ...]] = ("state.jsonl",)

    def options(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the options, checked and filled."""
        return checked_options(Options, given, kind=self.kind).model_dump()

    def probe(self, endpoint: Endpoint) -> str:
        """Return the version of this machine's kernel, e.g. `6.1.0-18-amd64`."""
        if endpoint.kind != FILES:
            raise ConfigurationError(
                f"{endpoint.label} is a server, and logs are files of this machine",
                remedy="Remove `connection` from the source, or name a directory as the target.",
                value=endpoint.label,
            )
        return platform.release()

    def dump(
        self,
        endpoint: Endpoint,
        sink: Sink,
        options: Mapping[str, Any],
        parent: Parent | None = None,
    ) -> Dump:
        """Write all files, with `parent` the bytes that its chain lacks, and the tree's state."""
        from neuroca_backup.engines.logs import dump

        version = self.probe(endpoint)
        return dump.dump(sink, Options.model_validate(options), parent, version=version)

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

        self.probe(target.endpoint)
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
