"""Mistakes in a configuration file, and the one error that lists them.

A value under a key that looks secret is never shown, nor is a whole section or list, nor the
password inside an address.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuroca_backup.errors import ConfigurationError

_TYPE_NAMES = {dict: "a section", list: "a list", type(None): "nothing"}
_SECRET_KEY = re.compile(r"pass|pwd|secret|token|credential|private|auth|key", re.IGNORECASE)
# These name a key, or say who keeps it; everything else with such a word may be the secret itself.
_NOT_SECRET = frozenset({"kms_key_id", "secondary_kms_key_id", "key_management"})
_LOGIN_IN_ADDRESS = re.compile(r"://[^/\s]*@")
_LONGEST_VALUE = 160


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing wrong at one place of a file.

    `path` leads to it from the top (`("backup", "retention", "database")`), `problem` and `remedy`
    are sentences, `line` counts from 1, and `value` is what may be shown of the value found.
    """

    path: tuple[str | int, ...]
    problem: str
    remedy: str
    line: int | None = None
    value: Any = None

    @property
    def dotted(self) -> str:
        """The path as a person writes it: `backup.notifications.email[0]`."""
        return dotted(self.path)

    @property
    def place(self) -> str:
        """Path and line, as far as they are known."""
        line = "" if self.line is None else f"line {self.line}"
        if not self.path:
            return line
        return f"{self.dotted} ({line})" if line else self.dotted

    def __str__(self) -> str:
        where = f"{self.place}: " if self.place else ""
        return f"{where}{self.problem}. {self.remedy}"


def dotted(path: Sequence[str | int]) -> str:
    """Return `path` with dots between keys and indices in brackets."""
    words = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return words.removeprefix(".")


def refusal(file: Path, mistakes: Sequence[Mistake]) -> ConfigurationError:
    """Return the error that lists `mistakes` in the order of the file; its facts are the first's.

    The facts are `file`, `path`, `line`, `value`, and `mistakes`, the sentence of each.
    """
    ordered = sorted(mistakes, key=lambda mistake: mistake.line or 0)
    first = ordered[0]
    facts = {
        "file": str(file),
        "path": first.dotted,
        "line": first.line,
        "value": first.value,
        "mistakes": tuple(map(str, ordered)),
    }
    if len(ordered) == 1:
        where = f"{first.place}: " if first.place else ""
        return ConfigurationError(f"{file}: {where}{first.problem}", remedy=first.remedy, **facts)
    listed = "\n".join(f"- {mistake}" for mistake in ordered)
    return ConfigurationError(
        f"{file} has {len(ordered)} mistakes", remedy=f"Mend each of them:\n{listed}", **facts
    )


def is_secret(path: Sequence[str | int]) -> bool:
    """Return whether a value at `path` may be a secret, judging by the words of the path."""
    words = [part for part in path if isinstance(part, str) and part not in _NOT_SECRET]
    return any(_SECRET_KEY.search(word) for word in words)


def presentable(path: Sequence[str | int], value: Any) -> Any:
    """Return what of `value` may be kept in an error's facts."""
    if is_secret(path):
        return "***"
    if isinstance(value, str):
        cleaned = _LOGIN_IN_ADDRESS.sub("://***@", value)
        return cleaned if len(cleaned) <= _LONGEST_VALUE else f"{cleaned[:_LONGEST_VALUE]}..."
    return value if isinstance(value, bool | int | float | None) else shown(path, value)


def shown(path: Sequence[str | int], value: Any) -> str:
    """Return `value` as the subject of a sentence, in the words of YAML."""
    if is_secret(path):
        return "the value (not shown here)"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return repr(presentable(path, value))
    if isinstance(value, int | float):
        return f"the number {value}"
    return _TYPE_NAMES.get(type(value), f"a {type(value).__name__}")
