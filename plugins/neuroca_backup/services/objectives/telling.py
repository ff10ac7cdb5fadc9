"""Who is told what, and when again; and what was told before, kept as one small object in a store.

A finding is told when it is new, when it has become worse, and when it has lasted. Where it is not
known what was told before, everything is told: twice is better than not at all.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from neuroca_backup.errors import BackupError, DamagedError, NotFoundError
from neuroca_backup.model import document
from neuroca_backup.services.inventory import CLOCK_TOLERANCE
from neuroca_backup.services.objectives.findings import Finding, Kind, Level
from neuroca_backup.stores import Store

log = logging.getLogger(__name__)

FOLDER = "monitor"
KEY = f"{FOLDER}/state.json"
# Runs do not start to the second: what is due in a moment is due.
_SLACK = timedelta(minutes=10)


class Told(BaseModel):
    """That a finding was told at `told_at`, how bad it then was, and since when it is there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    level: Literal["warning", "breach"]
    since: AwareDatetime
    told_at: AwareDatetime


class MonitorState(BaseModel):
    """What was told and is not over yet, by the key of the finding; `seen_at` dates all of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    seen_at: AwareDatetime
    told: dict[str, Told] = {}


@dataclass(frozen=True, slots=True)
class Decision:
    """What is told now, and what is over; `state` is to be kept once that was done."""

    tell: tuple[Finding, ...]
    over: tuple[str, ...]
    state: MonitorState


def everything(_kind: Kind, _component: str) -> bool:
    """Say that all was looked at."""
    return True


def worth_telling(finding: Finding) -> bool:
    """Return whether anybody is told: of breaches, and of warnings that stay until mended.

    The age of a backup passes its warning before every next backup: that is no news. What holds
    of a component as a whole is what is told of its sources.
    """
    if finding.kind is Kind.RPO:
        whole = bool(finding.component) and not finding.subject
        return finding.level is Level.BREACH and not whole
    return finding.level is not Level.OK


def decide(
    now: datetime,
    findings: Sequence[Finding],
    before: MonitorState | None,
    *,
    repeat: timedelta,
    covers: Callable[[Kind, str], bool] = everything,
) -> Decision:
    """Return what of `findings` is told at `now` (aware).

    `before` is None where it is not known what was told. `covers` says of a kind and a component
    whether it was looked at: what was told of others is not over, and stays as it is.
    """
    known = {} if before is None else before.told
    current = {one.key: one for one in findings if worth_telling(one)}
    tell: list[Finding] = []
    told: dict[str, Told] = {}
    for key, finding in current.items():
        earlier = known.get(key)
        since = now if earlier is None else min(earlier.since, now)
        if earlier is None or _due(now, finding, earlier, repeat):
            tell.append(finding)
            told[key] = Told(level=_word(finding), since=since, told_at=now)
        else:
            # One that has become better is worse again when it is what it was.
            told[key] = earlier.model_copy(update={"level": _word(finding)})
    over: list[str] = []
    for key, earlier in known.items():
        if key in current:
            continue
        kind, _, rest = key.partition("/")
        if kind not in set(Kind) or covers(Kind(kind), rest.partition("/")[0]):
            over.append(key)
        else:
            told[key] = earlier
    tell.sort(key=lambda one: (-one.level, one.key))
    return Decision(tuple(tell), tuple(over), MonitorState(seen_at=now, told=told))


def _due(now: datetime, finding: Finding, earlier: Told, repeat: timedelta) -> bool:
    worse = finding.level > Level[earlier.level.upper()]
    # A time to come was written by a clock that was wrong: nobody knows when it was told.
    unknown = earlier.told_at > now + CLOCK_TOLERANCE
    return worse or unknown or now - earlier.told_at >= repeat - _SLACK


def _word(finding: Finding) -> Literal["warning", "breach"]:
    return "breach" if finding.level is Level.BREACH else "warning"


def message(findings: Sequence[Finding], *, most: int = 20) -> str:
    """Return what people read: a line for each finding, the first `most` of them."""
    lines = [f"{one.level.name}: {one.sentence}" for one in findings[:most]]
    if len(findings) > most:
        lines.append(
            f"And {len(findings) - most} more: `neuroca-backup objectives` shows them all."
        )
    return "\n".join(lines)


def subject(findings: Sequence[Finding]) -> str:
    """Return one line that says how much is wrong, and with what."""
    breaches = [one for one in findings if one.level is Level.BREACH]
    chosen = breaches or list(findings)
    what = "breach" if breaches else "warning"
    places = list(dict.fromkeys(one.component or one.subject or one.kind for one in chosen))
    plural = "" if len(chosen) == 1 else ("es" if breaches else "s")
    return f"NCA backups: {len(chosen)} {what}{plural}: {', '.join(places)}"


def read(stores: Mapping[str, Store]) -> MonitorState | None:
    """Return the newest state that any store has; None where no store tells.

    A damaged one counts as none; the next state replaces it.
    """
    found: list[MonitorState] = []
    for name, store in stores.items():
        place = f"{name}:{KEY}"
        try:
            body = document.decode(store.get(KEY), name=place)
            found.append(MonitorState.model_validate(body))
        except NotFoundError:
            continue
        except ValidationError:
            log.warning("%s is not a state of the monitor: everything is told again", place)
        except DamagedError as error:
            log.warning("%s: everything is told again", error.problem)
        except BackupError as error:
            log.warning("%s does not tell what was told before: %s", name, error.problem)
    return max(found, key=lambda one: one.seen_at, default=None)


def keep(stores: Mapping[str, Store], state: MonitorState) -> bool:
    """Write the state into every store; return whether any of them took it.

    Where none did, all of it is told again at the next look. That is no error: a retry of whoever
    has told it would only tell it again at once.
    """
    data = document.encode(state.model_dump(mode="json"))
    kept = False
    for name, store in stores.items():
        try:
            store.put(KEY, data)
        except BackupError as error:
            log.warning("%s does not keep what was told: %s", name, error.problem)
        else:
            kept = True
    return kept
