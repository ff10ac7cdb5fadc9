"""What the monitor has to say of one thing: how bad it is, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from enum import IntEnum, StrEnum
from typing import Any

_DAYS_FROM = 3


class Level(IntEnum):
    """How bad it is. What is not known is a breach: nothing unknown is OK."""

    OK = 0
    WARNING = 1
    BREACH = 2

    @property
    def word(self) -> str:
        """What people read."""
        return self.name.lower()


class Kind(StrEnum):
    """What is looked at."""

    RPO = "rpo"
    COPIES = "copies"
    CONTENT = "content"
    STORE = "store"
    CATALOG = "catalog"
    SCHEDULE = "schedule"
    FORECAST = "forecast"
    RESTORE_TEST = "restore_test"
    CHECK = "check"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at, whatever came of it.

    `subject` is the source, the store or the task it is about, "" for the component as a whole;
    `component` is "" where it is about none. `age` and `limit` are in seconds, None where there
    is none.
    """

    kind: Kind
    level: Level
    component: str
    subject: str
    problem: str
    remedy: str = ""
    age: float | None = None
    limit: float | None = None
    backup_id: str = ""

    @property
    def key(self) -> str:
        """What tells this finding from others, and finds it again the next time."""
        return f"{self.kind}/{self.component}/{self.subject}"

    @property
    def sentence(self) -> str:
        """The problem and the remedy, with what they are about."""
        place = "/".join(part for part in (self.component, self.subject) if part)
        text = f"{place}: {self.problem}" if place else self.problem
        return f"{text}. {self.remedy}" if self.remedy else f"{text}."

    def to_json(self) -> dict[str, Any]:
        """Return the finding as plain data; `from_json` reads it."""
        return {**asdict(self), "kind": self.kind.value, "level": self.level.word}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Finding:
        """Return the finding that `to_json` wrote."""
        return cls(**{**data, "kind": Kind(data["kind"]), "level": Level[data["level"].upper()]})


def worst(findings: Iterable[Finding]) -> Level:
    """Return the worst level; of nothing at all it is a breach, for nothing was looked at."""
    return max((one.level for one in findings), default=Level.BREACH)


def hours(period: float) -> str:
    """Return seconds in the words of objectives: `40 min`, `24 h 1 min`, and from 3 days on `7 d`.

    What is left below the last unit is dropped, never rounded up: `24 h` is not `25 h` yet.
    """
    minutes = int(abs(period) // 60)
    if minutes >= _DAYS_FROM * 24 * 60:
        units = ((24 * 60, "d"), (60, "h"))
    else:
        units = ((60, "h"), (1, "min"))
    words = []
    for length, unit in units:
        count, minutes = divmod(minutes, length)
        if count:
            words.append(f"{count} {unit}")
    return " ".join(words) or "0 min"


def seconds_of(period: timedelta | None) -> float | None:
    """Return a period in seconds."""
    return None if period is None else period.total_seconds()


def ends_waiting(finding: Finding, *, at_breach: str) -> bool:
    """Return whether whoever waits for an objective need not wait on.

    They need not when it is kept; when it is broken only if `at_breach` is `fail`, not `wait`.
    """
    return finding.level is not Level.BREACH or at_breach == "fail"
