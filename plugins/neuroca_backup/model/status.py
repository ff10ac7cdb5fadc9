"""How far a backup has been proven, and what a check found."""

from __future__ import annotations

from datetime import datetime
from enum import IntEnum
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict


class Level(IntEnum):
    """The ladder of proof; a backup is verified when its level was reached by reading it back."""

    NONE = 0
    PRESENT = 1
    INTACT = 2
    READABLE = 3
    PARSED = 4
    RESTORED = 5


class Finding(BaseModel):
    """One thing wrong with a stored backup: which object, and what about it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    problem: str


class Verification(BaseModel):
    """What a check of one backup in one store found.

    `level` is what was proven; any finding means that the copy is damaged, whatever the level.
    Where a deeper check found more at `proven_at`, and now the bytes are still the same, that more
    stands. `fell_from` is the level that was proven before the copy was found to have less.
    `manifest` is the SHA-256 (hex) of what the manifest's MAC covers, "" where it is not known.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = 1
    backup_id: str
    store: str
    level: Level
    findings: tuple[Finding, ...] = ()
    checked_at: AwareDatetime
    seconds: float
    bytes_read: int
    manifest: str = ""
    proven_at: AwareDatetime | None = None
    fell_from: Level | None = None

    @property
    def sound(self) -> bool:
        """Whether the copy was read back and nothing is wrong with it."""
        return not self.findings and self.level >= Level.INTACT

    @property
    def level_at(self) -> datetime:
        """When `level` was proven; the bytes were read once more at `checked_at`."""
        return self.proven_at or self.checked_at

    def after(self, former: Verification | None) -> Verification:
        """Return this result as what it means after `former`, the one before it of the same copy.

        Bytes that have the digests of the same manifest are the very bytes that were looked at
        then, so what a deeper check proved of them still holds. A level that fell is remembered
        until the copy is sound again: whoever is killed while telling it tells it the next time.
        """
        if former is None:
            return self
        if not self.sound:
            before = former.level if former.sound else former.fell_from
            return self.model_copy(update={"fell_from": before})
        same = bool(self.manifest) and self.manifest == former.manifest
        if same and former.sound and former.level > self.level:
            return self.model_copy(update={"level": former.level, "proven_at": former.level_at})
        return self


class Checked(BaseModel):
    """When a source was last seen to be what a backup of it holds, so that no new one was made.

    `fingerprint` (SHA-256, hex) is what the source and the backup had in common at `checked_at`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    backup_id: str
    checked_at: AwareDatetime
    fingerprint: str
