"""What is listed in backup.yaml, and what it means on this machine now."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from neuroca_backup.errors import ConfigurationError, NotFoundError
from neuroca_backup.trees.entries import is_path, shown, within
from neuroca_backup.trees.reading import STABLE_SECONDS
from neuroca_backup.trees.walking import matching, outermost

ROOT = Path("/")
# The runbook's four kinds of configuration.
SECTIONS = ("environment", "parameters", "integrations", "security")


class Listed(BaseModel):
    """An absolute path or glob; with `optional` it may be absent."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

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
                "a path is absolute, below / and has no `.`, `..` or `//`, such as /etc/neuroca"
            )
        return trimmed


class Options(BaseModel):
    """`options` of a source of this engine.

    `environment`, `parameters`, `integrations` and `security` list files and directories; an item
    is a path or glob, or `{path: ..., optional: true}`. `exclude` has patterns of names, or of
    paths where there is a `/` in them. `stable_seconds` is how long a file that changes while it is
    read is read again. `schemas` gives the absolute path of a JSON Schema by a pattern like those
    of `exclude`: what the pattern matches is held to it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    environment: tuple[Listed, ...] = ()
    parameters: tuple[Listed, ...] = ()
    integrations: tuple[Listed, ...] = ()
    security: tuple[Listed, ...] = ()
    exclude: tuple[str, ...] = ()
    schemas: dict[str, str] = Field(default_factory=dict)
    stable_seconds: float = Field(default=STABLE_SECONDS, gt=0, le=3600)

    @model_validator(mode="after")
    def _lists_something(self) -> Options:
        if not any(self.listed().values()):
            raise ValueError(f"list at least one path under one of {', '.join(SECTIONS)}")
        return self

    @field_validator("schemas")
    @classmethod
    def _are_absolute(cls, named: dict[str, str]) -> dict[str, str]:
        for pattern, path in named.items():
            if not pattern or not path.startswith("/") or not is_path(path[1:]):
                raise ValueError(
                    "write a pattern and the absolute path of its schema, such as "
                    "{'*.yaml': /etc/neuroca/schemas/memory.json}"
                )
        return named

    def listed(self) -> dict[str, tuple[Listed, ...]]:
        """Return what is listed, by section."""
        return {section: getattr(self, section) for section in SECTIONS}


def tops(options: Options) -> dict[str, str]:
    """Return the paths below / that are there now, each with its section.

    Raises:
        NotFoundError: A path that is not optional does not exist, or a glob matches nothing.
        ConfigurationError: Two sections list the same path, or one lists a symbolic link whose
            target nobody lists: the backup would hold the link alone.
    """
    found: dict[str, str] = {}
    for section, items in options.listed().items():
        for item in items:
            paths = list(_matches(item.path))
            if not paths and not item.optional:
                raise NotFoundError(
                    f"{shown(item.path)}, listed under options.{section}, "
                    + ("matches nothing" if glob.has_magic(item.path) else "does not exist"),
                    remedy="Correct the path; write {path: ..., optional: true} where it may be "
                    "absent.",
                    path=f"options.{section}",
                    value=shown(item.path),
                )
            for path in paths:
                if found.setdefault(path, section) != section:
                    raise ConfigurationError(
                        f"/{shown(path)} is listed under both {found[path]} and {section}",
                        remedy="List it once.",
                        path=f"options.{section}",
                        value=shown(path),
                    )
    _require_targets(found)
    return found


def removed(facts: Mapping[str, Any], restored: list[str]) -> list[str]:
    """Return what matches the lists of a backup now, and was not there when it was made.

    `restored` are the paths that the restore puts in place; what is above or below them is theirs.
    """
    found = there(facts)
    left_alone = matching(facts["exclude"])
    return [
        path
        for path in outermost(sorted(found))
        if not left_alone(path)
        and not any(within(path, one) or within(one, path) for one in restored)
    ]


def there(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return what matches the lists of a backup now, each path with its section."""
    return {
        path: section
        for section, items in facts["listed"].items()
        for item in items
        for path in _matches(item["path"])
    }


def _matches(path: str) -> Iterator[str]:
    """Yield the paths below / that a listed one means; what has the odd name itself goes first."""
    if os.path.lexists(path) or not glob.has_magic(path):
        matches = [path] if os.path.lexists(path) else []
    else:
        matches = sorted(glob.glob(path, recursive=True, include_hidden=True))  # noqa: PTH207 - pathlib's leaves out links that lead nowhere
    for match in matches:
        yield match.strip("/")


def _require_targets(found: Mapping[str, str]) -> None:
    for path, section in found.items():
        link = Path("/") / path
        if not link.is_symlink():
            continue
        target = os.path.realpath(link).lstrip("/")
        if not any(within(target, one) for one in found if one != path):
            raise ConfigurationError(
                f"/{shown(path)}, listed under options.{section}, is a symbolic link to "
                f"/{shown(target)}, which is not listed",
                remedy=f"List /{shown(target)} as well, or instead; links are kept, not followed.",
                path=f"options.{section}",
                value=shown(path),
            )
