"""What a run came to for one source, in counts and sentences of a bounded size."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from neuroca_backup.errors import (
    BackupError,
    DamagedError,
    PermanentError,
    StoreUnavailableError,
    TransientError,
)
from neuroca_backup.model.identity import Component
from neuroca_backup.model.status import Finding, Level, Verification
from neuroca_backup.services.checking.planning import Copy

log = logging.getLogger(__name__)

# So many sentences of each kind are told; the log has them all.
_TOLD = 20
_FINDINGS_TOLD = 3


@dataclass(slots=True)
class Report:
    """What a run came to for one source.

    `levels` counts the sound copies by how deep they were read. `fallen` are sentences about
    damage, `failed` about checks that could not run, `archived` about copies that cannot be read.
    `overdue` copies were found to be so, and `left` of them still are. `size` is in bytes.
    """

    component: Component
    source: str
    levels: Counter[str] = field(default_factory=Counter)
    fallen: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    archived: list[str] = field(default_factory=list)
    transient: bool = True
    coming: int = 0
    later: int = 0
    overdue: int = 0
    left: int = 0
    size: int = 0

    @property
    def checked(self) -> int:
        """How many copies were read."""
        return self.levels.total() + len(self.fallen)

    def add(self, result: Verification, *, depth: Level) -> None:
        """Count the result of a check that looked as deep as `depth`."""
        self.size += result.bytes_read
        if not result.sound:
            sentence = _fall(result)
            log.error("%s", sentence)
            self.fallen.append(sentence)
        else:
            self.levels[depth.name.lower()] += 1

    def not_checkable(self, copy: Copy) -> None:
        """Count a copy that cannot be read, with its last check."""
        sentence = f"{copy.ref.backup_id} in {copy.store} is archived, {copy.history}"
        log.warning("Not checkable: %s", sentence)
        self.archived.append(sentence)

    def not_checked(self, what: str, error: BackupError) -> None:
        """Count a check of `what` that could not run, and why."""
        log.error("%s could not be checked: %s", what, error)
        self.failed.append(f"{what}: {error.problem}")
        self.transient = self.transient and isinstance(error, TransientError)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data of a bounded size: of sentences the first ones."""
        told = {
            word: [*found[:_TOLD], *([f"and {len(found) - _TOLD} more"] if found[_TOLD:] else [])]
            for word, found in (
                ("fallen", self.fallen),
                ("failed", self.failed),
                ("archived", self.archived),
            )
        }
        return {
            "component": self.component.value,
            "source": self.source,
            "checked": self.checked,
            "levels": dict(self.levels),
            "not_checkable": len(self.archived),
            "coming": self.coming,
            "later": self.later,
            "overdue": self.overdue,
            "left_overdue": self.left,
            "bytes": self.size,
            **told,
        }

    def require_sound(self) -> None:
        """Raise unless every copy that was to be read in this run was, and is sound.

        Raises:
            DamagedError: Copies are damaged, or have fallen; names each, with its levels.
            TransientError: Checks could not run, all for reasons that may pass.
            PermanentError: Checks could not run, or copies are still overdue.
        """
        where = f"{self.component}/{self.source}"
        if self.fallen:
            raise DamagedError(
                f"{where}: {_told([*self.fallen, *self.failed])}",
                remedy="Restores use the other store's copy meanwhile; how this one is mended is "
                "in docs/reference/verification.md.",
                source=self.source,
            )
        if self.failed:
            problem = f"{where}: not everything could be checked: {_told(self.failed)}"
            if self.transient:
                raise StoreUnavailableError(
                    problem, remedy="It is tried again.", source=self.source
                )
            raise PermanentError(
                problem, remedy="Mend what it names; the next run checks it.", source=self.source
            )
        if self.left:
            raise PermanentError(
                f"{where}: {self.left} copies are still overdue after this run",
                remedy="The next run begins with them. If they do not get fewer, raise "
                "`verification.longest` or `verification.window` in backup.yaml.",
                source=self.source,
            )


def _fall(result: Verification) -> str:
    """Return what became of a copy, with its level before and now."""
    before = "was never sound" if result.fell_from is None else f"was {result.fell_from.name}"
    told = [_worded(finding) for finding in result.findings[:_FINDINGS_TOLD]]
    more = len(result.findings) - len(told)
    why = "; ".join([*told, *([f"and {more} more"] if more else [])])
    return f"{result.backup_id} in {result.store} {before} and is {result.level.name}: {why}"


def _worded(finding: Finding) -> str:
    named = finding.key in finding.problem
    return finding.problem if named else f"{finding.key}: {finding.problem}"


def _told(sentences: Sequence[str]) -> str:
    more = len(sentences) - _FINDINGS_TOLD
    shown = "; ".join(sentences[:_FINDINGS_TOLD])
    return shown + (f"; and {more} more" if more > 0 else "")
