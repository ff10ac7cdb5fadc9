"""How far the restore of a tier has come, noted in its private folder."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuroca_backup.errors import NotFoundError, SpoolError

_FILE = "memory.json"
LOADING, LOADED, PUBLISHED = "loading", "loaded", "published"


def mark(backup_id: str, only: tuple[str, ...]) -> str:
    """Return twelve hexadecimal digits that name this restore on the target; each time the same."""
    return hashlib.sha256("\0".join((backup_id, *only)).encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Journal:
    """The note of one restore below `work`; a step that is killed leaves the last whole note."""

    work: Path

    def read(self) -> dict[str, Any]:
        """Return the note: `state`, and what `write` was given; {} where nothing was begun."""
        try:
            found: dict[str, Any] = json.loads((self.work / _FILE).read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise self._unreadable(type(error).__name__) from None
        return found

    def write(self, state: str, **words: Any) -> None:
        """Replace the note; it is on disk before this returns."""
        path = self.work / _FILE
        try:
            self.work.mkdir(mode=0o700, parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            with os.fdopen(
                os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb"
            ) as file:
                file.write(json.dumps({"state": state, **words}).encode())
                file.flush()
                os.fsync(file.fileno())
            partial.rename(path)
        except OSError as error:
            raise self._unreadable(error.strerror or type(error).__name__) from None

    @property
    def staged(self) -> bool:
        """Whether a whole copy waits beside what the target holds."""
        return self.read().get("state") == LOADED

    @property
    def published(self) -> bool:
        """Whether the copy is in its place."""
        return self.read().get("state") == PUBLISHED

    def require_loaded(self, *, backup_id: str) -> dict[str, Any]:
        """Return the note of a load that came to its end.

        Raises:
            NotFoundError: There was none, or it was cut off.
        """
        found = self.read()
        if found.get("state") != LOADED:
            raise NotFoundError(
                f"{backup_id} has not been loaded to its end: nothing can be put in place",
                remedy="Run the restore from its load step on.",
                backup_id=backup_id,
            )
        return found

    def _unreadable(self, why: str) -> SpoolError:
        return SpoolError(
            f"The note of the restore in {self.work} cannot be used ({why})",
            remedy="Make room in the spool, and run the restore from its load step on.",
            path=str(self.work),
        )
