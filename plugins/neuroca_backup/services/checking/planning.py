"""Which copies of one source are read back in this run, and how deep; pure: nothing does I/O."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from neuroca_backup.model.identity import BackupRef, Component
from neuroca_backup.model.status import Level
from neuroca_backup.settings import Settings
from neuroca_backup.settings.cron import next_run

# What was read since this part of the time between two runs was read in this one, which is then
# repeated, or when it was made: its bytes count, and it is not read again at once.
_FRESH = 0.5


@dataclass(frozen=True, slots=True)
class Rules:
    """How often copies are read, and how deep.

    Each is read within `window`; runs begin at the times of the cron expression `schedule` and work
    at a source for about `longest`. `readable` and `parsed` are percent of the copies of a run. A
    copy that is not there is no loss before its backup is `settling` old: it may still be made.
    """

    window: timedelta = timedelta(days=7)
    schedule: str = "0 7 * * *"
    longest: timedelta = timedelta(hours=6)
    readable: int = 20
    parsed: int = 10
    settling: timedelta = timedelta(days=3)

    @classmethod
    def of(cls, settings: Settings) -> Rules:
        """Return the rules that backup.yaml sets."""
        section = settings.verification
        return cls(
            window=section.window,
            schedule=section.schedule,
            longest=section.longest,
            readable=section.readable,
            parsed=section.parsed,
            settling=settings.retention.leftovers,
        )


@dataclass(frozen=True, slots=True)
class Last:
    """What the last check of a copy came to: see `Verification`, whose words these are."""

    level: Level
    sound: bool
    checked_at: datetime
    level_at: datetime


class State(StrEnum):
    """What there is of a copy.

    `ARCHIVED`: its bytes have to be asked for hours before they are read. `LOST`: no manifest can
    be read, and there was one, or should be by now. `COMING`: there is none, and the backup is
    young enough to be copied still.
    """

    STORED = "stored"
    ARCHIVED = "archived"
    LOST = "lost"
    COMING = "coming"


@dataclass(frozen=True, slots=True)
class Copy:
    """One backup in one store.

    `size` is in bytes, with what it refers to in earlier backups. It was there to be read since
    `since` (aware); `last` is None if it never was.
    """

    ref: BackupRef
    store: str
    size: int
    since: datetime
    last: Last | None = None
    state: State = State.STORED

    @property
    def unread_since(self) -> datetime:
        """Since when (aware) nobody has read it."""
        return self.last.checked_at if self.last is not None else self.since

    @property
    def history(self) -> str:
        """When it was last read and what that came to, in words."""
        if self.last is None:
            return "never checked"
        when = self.last.checked_at.isoformat(timespec="seconds")
        found = self.last.level.name if self.last.sound else "damaged"
        return f"last checked {when}: {found}"


@dataclass(frozen=True, slots=True)
class Check:
    """One copy to read up to `level`, with the reason in plain words."""

    copy: Copy
    level: Level
    reason: str
    overdue: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """What is done about the copies of one source in this run.

    `checks` are in their order. `archived` cannot be read, `coming` are not there yet, and `later`
    are due in another run. `unknown` are the sentences of what could not be looked at.
    """

    component: Component
    source: str
    checks: tuple[Check, ...]
    archived: tuple[Copy, ...] = ()
    coming: tuple[Copy, ...] = ()
    later: tuple[Copy, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def overdue(self) -> int:
        """How many copies were not read for longer than the window."""
        return sum(one.overdue for one in self.checks)

    @property
    def size(self) -> int:
        """How many bytes will be read."""
        return sum(one.copy.size for one in self.checks)


def plan(
    component: Component,
    source: str,
    copies: Sequence[Copy],
    *,
    rules: Rules,
    now: datetime,
    whole: bool = False,
    level: Level | None = None,
    unknown: Sequence[str] = (),
) -> Plan:
    """Decide which of `copies`, all of one source, are read in the run that begins at `now`.

    Those that are lost, damaged, never checked, or would be overdue by the end of the next run,
    whatever there is of them; then those that were not read for longest, until this run has had its
    share of all bytes. With `whole` it is all of them. `level` is how deep each is read; without
    it, a sample is read deeper than INTACT.
    """
    if now.tzinfo is None:
        raise ValueError(f"plan needs an aware datetime, got {now!r}")
    open_ = [one for one in copies if one.state in {State.STORED, State.LOST}]
    reasons: dict[Copy, str] = {}
    following = next_run(rules.schedule, after=now)
    for one in open_:
        reason = "all are asked for" if whole else _pressing(one, rules, now, following)
        if reason:
            reasons[one] = reason
    if not whole:
        reasons |= _share(open_, reasons, rules, now, following)
    chosen = sorted(reasons, key=lambda one: _order(one, rules, now))
    depths = _depths(chosen, rules) if level is None else dict.fromkeys(chosen, level)
    return Plan(
        component=component,
        source=source,
        checks=tuple(
            Check(one, depths[one], reasons[one], overdue=_overdue(one, rules, now))
            for one in chosen
        ),
        archived=tuple(one for one in copies if one.state is State.ARCHIVED),
        coming=tuple(one for one in copies if one.state is State.COMING),
        later=tuple(one for one in open_ if one not in reasons),
        unknown=tuple(unknown),
    )


def _overdue(one: Copy, rules: Rules, now: datetime) -> bool:
    return one.unread_since + rules.window < now


def _pressing(one: Copy, rules: Rules, now: datetime, following: datetime) -> str:
    """Return why a copy has to be read in this run, or ""."""
    if one.state is State.LOST:
        return "its manifest is gone or unreadable"
    if _overdue(one, rules, now):
        return f"overdue: {one.history}"
    if one.last is None:
        return one.history
    if not one.last.sound:
        return "it was found damaged"
    # The next run may come to it only at its end.
    if one.unread_since + rules.window <= following + rules.longest:
        return "it would be overdue in the next run"
    return ""


def _share(
    copies: Sequence[Copy],
    pressing: dict[Copy, str],
    rules: Rules,
    now: datetime,
    following: datetime,
) -> dict[Copy, str]:
    """Return what else is read, so that every run reads about as much as the others."""
    every = next_run(rules.schedule, after=following) - following
    # Two runs fewer than there are in the window: one may fail, and one comes to a copy at its end.
    runs = max(1, rules.window // every - 2)
    fresh = now - every * _FRESH
    read = [one for one in copies if one.last is not None and one.last.checked_at > fresh]
    left = math.ceil(sum(one.size for one in copies) / runs)
    left -= sum(one.size for one in {*read, *pressing})
    others = sorted(
        (one for one in copies if one not in pressing and one not in read),
        key=lambda one: (one.unread_since, *_order(one, rules, now)),
    )
    found: dict[Copy, str] = {}
    for one in others:
        if left <= 0:
            break
        found[one] = f"its turn: {one.history}"
        left -= one.size
    return found


def _order(one: Copy, rules: Rules, now: datetime) -> tuple[int, float, str]:
    """Return what sorts the never checked first, then the overdue, and of each the newest first."""
    turn = 0 if one.last is None else 1 if _overdue(one, rules, now) else 2
    return turn, -one.ref.time.timestamp(), one.store


def _depths(chosen: Sequence[Copy], rules: Rules) -> dict[Copy, Level]:
    """Return how deep each is read: those deepest whose last look of that depth is longest ago."""
    depths = dict.fromkeys(chosen, Level.INTACT)
    stored = [one for one in chosen if one.state is State.STORED]
    for level, percent in ((Level.PARSED, rules.parsed), (Level.READABLE, rules.readable)):
        rest = [one for one in stored if depths[one] is Level.INTACT]
        rest.sort(key=lambda one: _looked(one, level))  # stable: of equals the first that is read
        for one in rest[: math.ceil(len(stored) * percent / 100)]:
            depths[one] = level
    return depths


def _looked(one: Copy, level: Level) -> float:
    """Return when a copy was last looked at that deep, in seconds; 0 if it never was."""
    last = one.last
    if last is None or not last.sound or last.level < level:
        return 0.0
    return last.level_at.timestamp()
