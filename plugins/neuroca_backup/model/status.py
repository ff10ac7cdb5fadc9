"""How far a backup has been proven, and what a check found."""

from __future__ import annotations

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

    @property
    def sound(self) -> bool:
        """Whether the copy was read back and nothing is wrong with it."""
        return not self.findings and self.level >= Level.INTACT


class Checked(BaseModel):
    """When a source was last seen to be what a backup of it holds, so that no new one was made.

    `fingerprint` (SHA-256, hex) is what the source and the backup had in common at `checked_at`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    backup_id: str
    checked_at: AwareDatetime
    fingerprint: str
