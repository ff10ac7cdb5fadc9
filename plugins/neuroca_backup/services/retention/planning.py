"""What becomes of every backup of one source, and why; pure: nothing here does I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from neuroca_backup.model.identity import BackupRef, Component
from neuroca_backup.model.retention import Hold, Tombstone
from neuroca_backup.services import needs
from neuroca_backup.services.inventory import CLOCK_TOLERANCE
from neuroca_backup.services.locking import words
from neuroca_backup.settings import RetentionSettings, Settings

# A copy in one store alone is one loss away from none.
COPIES = 2


@dataclass(frozen=True, slots=True)
class Rules:
    """How long backups stay.

    `kept` is by component; of each source the newest `keep_verified` verified backups stay
    whatever their age. Between expiry and deletion lies `grace`. `most_at_once` is in percent of a
    source's verified backups. What has no manifest is no leftover before it is `leftovers` old.
    With `presence_counts` a copy that is there and was not found damaged is taken for sound.
    """

    kept: Mapping[Component, timedelta]
    keep_verified: int = 3
    grace: timedelta = timedelta(days=7)
    most_at_once: int = 50
    leftovers: timedelta = timedelta(days=3)
    presence_counts: bool = False

    @classmethod
    def of(cls, settings: Settings) -> Rules:
        """Return the rules that backup.yaml sets."""
        section: RetentionSettings = settings.retention
        return cls(
            kept={component: section.of(component) for component in Component},
            keep_verified=section.keep_verified,
            grace=section.grace,
            most_at_once=section.most_at_once,
            leftovers=section.leftovers,
        )


@dataclass(frozen=True, slots=True)
class Record:
    """What a plan has to know of one backup; no list in it grows with its members.

    `stores` have a manifest of it, and in those of `sound` it was read back and found sound. It
    `names` its parent and the backups that hold bytes of it. `size` is in bytes, its own in one
    store. `locked` is by store, until when the store itself refuses to delete it. A backup whose
    deletion has begun may have no manifest left.
    """

    ref: BackupRef
    started_at: datetime
    stores: frozenset[str]
    sound: frozenset[str] = frozenset()
    damaged: bool = False
    parent: str | None = None
    full: bool = True
    names: frozenset[str] = frozenset()
    attempts: frozenset[str] = frozenset()
    before_restore: bool = False
    holds: tuple[Hold, ...] = ()
    pinned: bool = False
    locked: Mapping[str, datetime] = field(default_factory=dict)
    tombstones: Mapping[str, Tombstone] = field(default_factory=dict)
    size: int = 0

    @property
    def backup_id(self) -> str:
        """Its id."""
        return self.ref.backup_id

    @property
    def erasing(self) -> bool:
        """Whether its deletion has begun, so that it is no backup any more."""
        return any(one.erasing_since is not None for one in self.tombstones.values())

    @property
    def erase_after(self) -> datetime | None:
        """When it may be deleted; None while a store that has it does not know that it is to be."""
        if not self.tombstones or not self.stores <= self.tombstones.keys():
            return None
        return max(one.erase_after for one in self.tombstones.values())


class Fate(StrEnum):
    """What becomes of a backup."""

    KEEP = "keep"
    TAKE_BACK = "take back"
    EXPIRE = "expire"
    WAIT = "wait"
    ERASE = "erase"


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of one backup, with the reason in plain words."""

    record: Record
    fate: Fate
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of all backups of one source, the newest first.

    Where something is `unknown`, nothing is deleted, whatever the decisions say; `excess` says why
    somebody has to confirm it first, "" if nobody has to. `needed` is by id: which others need it.
    """

    component: Component
    source: str
    decisions: tuple[Decision, ...]
    unknown: tuple[str, ...] = ()
    excess: str = ""
    needed: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def of(self, fate: Fate) -> tuple[Decision, ...]:
        """Return the decisions for one fate, the newest backup first."""
        return tuple(one for one in self.decisions if one.fate is fate)

    @property
    def changes(self) -> bool:
        """Whether carrying it out would change anything."""
        return any(one.fate not in {Fate.KEEP, Fate.WAIT} for one in self.decisions)


def plan(
    component: Component,
    source: str,
    backups: Sequence[Record],
    *,
    rules: Rules,
    now: datetime,
    unknown: Sequence[str] = (),
) -> Plan:
    """Decide what becomes of `backups`, which must be all of one source.

    `unknown` are the sentences of what could not be read: one is enough to stop every deletion.
    """
    if now.tzinfo is None:
        raise ValueError(f"plan needs an aware datetime, got {now!r}")
    if rules.presence_counts:
        backups = [one if one.damaged else replace(one, sound=one.stores) for one in backups]
    newest_first = sorted(backups, key=lambda one: one.backup_id, reverse=True)
    needed = needs.transitively({one.backup_id: one.names for one in backups})
    staying = _staying(newest_first, rules, now, needed)
    decisions = tuple(_decide(one, staying, rules, now) for one in newest_first)
    decisions = tuple(_not_before_those_that_need_it(decisions, needed))
    return Plan(
        component=component,
        source=source,
        decisions=decisions,
        unknown=(*unknown, *_wrong_clocks(newest_first, now)),
        excess=_excess(decisions, rules),
        needed=needed,
    )


def restorable(backups: Sequence[Record], *, copies: int) -> Iterator[Record]:
    """Yield those that can be restored whole, from backups sound in at least `copies` stores."""
    by_id = {one.backup_id: one for one in backups}
    for one in backups:
        link: Record | None = one
        while link is not None and len(link.sound) >= copies and not link.erasing:
            if link.full:
                yield one
                break
            older = link.parent is not None and link.parent < link.backup_id
            link = by_id.get(str(link.parent)) if older else None


def _staying(
    newest_first: Sequence[Record],
    rules: Rules,
    now: datetime,
    needed: Mapping[str, frozenset[str]],
) -> dict[str, str]:
    """Return, by id, why a backup stays; what is not in it may go."""
    alive = [one for one in newest_first if not one.erasing]
    whole = {one.backup_id for one in restorable(alive, copies=1)}
    twice = {one.backup_id for one in restorable(alive, copies=COPIES)}
    # What was saved before a restore may be the very state that somebody wanted to be rid of.
    good = [one.backup_id for one in alive if one.backup_id in whole and not one.before_restore]
    counted = [one for one in good if one in twice][: rules.keep_verified]
    # Where too few are sound in two stores, those that are in one fill up.
    fill = [one for one in good if one not in counted]
    newest = {*counted, *fill[: rules.keep_verified - len(counted)]}
    last = good[:1] or [one.backup_id for one in alive if one.backup_id in whole][:1]
    reasons: dict[str, str] = {}
    for one in alive:
        reason = _own_reason(one, rules, now)
        if reason is None and one.backup_id in newest:
            reason = f"one of the newest {rules.keep_verified} verified backups"
        if reason is None and one.backup_id in last:
            reason = "the newest backup that can be restored whole"
        if reason is None and one.backup_id not in whole and max(good, default="") < one.backup_id:
            what = "damaged" if one.damaged else "not verified"
            reason = f"{what}, but there is no newer verified backup"
        if reason is not None:
            reasons[one.backup_id] = reason
    for_others: dict[str, str] = {}
    for one in alive:
        by = sorted(needed.get(one.backup_id, frozenset()) & reasons.keys(), reverse=True)
        if one.backup_id not in reasons and by:
            more = f" and {len(by) - 1} more" if len(by) > 1 else ""
            for_others[one.backup_id] = f"needed by {by[0]}{more}"
    return reasons | for_others


def _own_reason(one: Record, rules: Rules, now: datetime) -> str | None:
    """Return why a backup stays whatever others there are, or None."""
    hold = next((found for found in one.holds if found.stands(now)), None)
    if hold is not None:
        until = "until it is released" if hold.until is None else f"until {_day(hold.until)}"
        return f"on hold by {hold.actor} {until}: {hold.reason}"
    if one.pinned:
        return "its manifest says that it must not be deleted"
    for store, until_moment in one.locked.items():
        if now < until_moment:
            return words(until_moment, store)
    if any(found.expired_at > now + CLOCK_TOLERANCE for found in one.tombstones.values()):
        return "its expiry is dated in the future, so a clock was wrong"
    expires = one.started_at + rules.kept[one.ref.component]
    return None if expires <= now else f"not older than {_days(rules, one)} before {_day(expires)}"


def _decide(one: Record, staying: Mapping[str, str], rules: Rules, now: datetime) -> Decision:
    if one.erasing:
        hold = next((found for found in one.holds if found.stands(now)), None)
        if hold is not None:
            return Decision(one, Fate.WAIT, f"its deletion has begun, but {hold.actor} holds it")
        return Decision(one, Fate.ERASE, "its deletion has begun")
    reason = staying.get(one.backup_id)
    if reason is not None:
        return Decision(one, Fate.TAKE_BACK if one.tombstones else Fate.KEEP, reason)
    state = "damaged, " if one.damaged else "" if one.sound else "never verified, "
    why = f"{state}older than {_days(rules, one)} since {_day(_expiry(one, rules))}"
    if one.erase_after is None:
        return Decision(one, Fate.EXPIRE, why)
    if now < one.erase_after:
        return Decision(one, Fate.WAIT, f"{why}; can be taken back until {_day(one.erase_after)}")
    return Decision(one, Fate.ERASE, f"{why}; nobody took it back until {_day(one.erase_after)}")


def _not_before_those_that_need_it(
    decisions: Sequence[Decision], needed: Mapping[str, frozenset[str]]
) -> Iterator[Decision]:
    """Let what is needed wait as long as one that needs it can still be taken back."""
    later = {one.record.backup_id for one in decisions if one.fate is not Fate.ERASE}
    for one in decisions:
        by = sorted(needed.get(one.record.backup_id, frozenset()) & later)
        if one.fate is Fate.ERASE and by:
            yield Decision(one.record, Fate.WAIT, f"needed by {by[0]}, which is not deleted yet")
        else:
            yield one


def _wrong_clocks(newest_first: Sequence[Record], now: datetime) -> Iterator[str]:
    """Yield why the time cannot be trusted; a clock that is wrong would make anything old."""
    limit = now + CLOCK_TOLERANCE
    for one in newest_first:
        if max(one.started_at, one.ref.time) > limit:
            yield (
                f"{one.backup_id} was begun at {_moment(one.started_at)}, and here it is "
                f"{_moment(now)}: one of the clocks is wrong"
            )
            return


def _excess(decisions: Sequence[Decision], rules: Rules) -> str:
    """Return why somebody has to confirm so many deletions, or ""."""
    verified = [one for one in decisions if one.record.sound and not one.record.tombstones]
    going = [one for one in verified if one.fate is Fate.EXPIRE]
    if len(going) * 100 <= len(verified) * rules.most_at_once:
        return ""
    return (
        f"{len(going)} of {len(verified)} verified backups would expire at once, more than "
        f"{rules.most_at_once} %"
    )


def _expiry(one: Record, rules: Rules) -> datetime:
    return one.started_at + rules.kept[one.ref.component]


def _days(rules: Rules, one: Record) -> str:
    hours = rules.kept[one.ref.component].total_seconds() / 3600
    return f"{hours / 24:g} days" if hours >= 48 else f"{hours:g} hours"


def _day(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds")
