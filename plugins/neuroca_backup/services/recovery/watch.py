"""Watching an objective: one look at its clock, and telling people at its levels and its limit.

The sensor and its trigger do nothing but look again and again. Whatever was told is in the journal,
so it is told once, however often they are started anew.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from neuroca_backup.errors import BackupError
from neuroca_backup.model import quantity
from neuroca_backup.model.recovery import Declared, EventKind, Value
from neuroca_backup.services.recovery import clock
from neuroca_backup.services.recovery.clock import Progress, State
from neuroca_backup.services.recovery.journal import Journal, Reading
from neuroca_backup.services.recovery.states import number

log = logging.getLogger(__name__)

# While nothing changes, this is how often a look is logged.
_SAID_EVERY = timedelta(minutes=5)

Notify = Callable[[str, str], int]


class Verdict(StrEnum):
    """What a look means for whoever waits for the objective."""

    WAIT = "wait"
    ABSENT = "absent"
    MET = "met"
    BREACHED = "breached"
    ENDED = "ended"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Sight:
    """What one look gave: the verdict, and in plain words why."""

    verdict: Verdict
    text: str


class Watch:
    """Looks at one objective of a recovery.

    Args:
        journal: The recovery's journal; kept between looks, so each event is read once.
        objective: The objective's name.
        notify: Sends subject and message to people and returns through how many channels. What it
            raises is logged; the watch goes on.
        actor: Who writes into the journal.
        known: The objectives that there are, whether this recovery has them or not.
        due: When the limit ends (aware), where it is known already.
        now: Gives the time (aware).
    """

    def __init__(
        self,
        journal: Journal,
        objective: str,
        *,
        notify: Notify,
        actor: str,
        known: Collection[str] = (),
        due: datetime | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.due = due
        self._journal = journal
        self._objective = objective
        self._notify = notify
        self._actor = actor
        self._known = frozenset(known)
        self._now = now
        self._told: dict[str, int] = {}  # through how many channels this process told what
        self._said: tuple[object, ...] = ()
        self._said_at = datetime.min.replace(tzinfo=UTC)

    def look(self) -> Sight:
        """Return how the objective stands, having told people what they were not told before.

        While the journal cannot be read it waits, at most until the limit: then nobody can tell
        whether the objective was met, which is never taken for yes.

        Raises:
            BackupError: The journal cannot be read, and the limit is not known either.
        """
        try:
            reading = self._journal.read()
            if self._objective in self._known - reading.declared.objectives.keys():
                text = f"Nothing of the objective {self._objective} was lost"
                return Sight(Verdict.ABSENT, text)
            found = clock.progress(
                reading.declared, reading.events, objective=self._objective, now=self._now()
            )
            self.due = reading.declared.declared_at + timedelta(seconds=found.limit)
        except BackupError as error:
            if self.due is None:
                raise
            sight = blind(error, due=self.due, now=self._now())
            if sight.verdict is Verdict.UNKNOWN:
                self._send("unknown", f"Recovery objective {self._objective}: unknown", sight.text)
            return sight
        text = str(found)
        if reading.unreachable:
            # What only those have may be what is missing.
            text += f"; without {', '.join(reading.unreachable)}, which did not answer"
        self._say(found, text)
        try:
            self._tell(reading, found, text)
        except BackupError as error:
            # What was read is still true; the next look, or the report, tells the journal.
            log.error("The journal does not take what was found: %s", error)  # noqa: TRY400 - no bug
        return Sight(_verdict(found), text)

    def _say(self, found: Progress, text: str) -> None:
        seen = (found.state, found.percent, found.open, found.failed)
        if seen != self._said or self._now() - self._said_at >= _SAID_EVERY:
            log.info("%s", text)
            self._said, self._said_at = seen, self._now()

    def _tell(self, reading: Reading, found: Progress, text: str) -> None:
        """Append and send what `found` means, unless the journal has it already."""
        ours = [one for one in reading.events if one.subject == self._objective]
        kinds = {one.kind for one in ours}
        warned = [number(one, "percent") or 0 for one in ours if one.kind is EventKind.WARNED]
        late = found.state in {State.BREACHED, State.MET_LATE}
        if late and EventKind.BREACHED not in kinds:
            details = self._send_about(reading.declared, "breached", "BREACHED", text)
            self._record(EventKind.BREACHED, found, "breached", details)
        elif found.state is State.RUNNING and not found.ended and found.percent > max([0, *warned]):
            once, told = f"warned:{found.percent}", f"{found.percent} % of the time is used"
            details = self._send_about(reading.declared, once, told, text)
            self._record(EventKind.WARNED, found, once, {**details, "percent": found.percent})
        if found.state in {State.MET, State.MET_LATE} and EventKind.MET not in kinds:
            self._record(EventKind.MET, found, "met", {"late": found.state is State.MET_LATE})

    def _send_about(self, declared: Declared, once: str, told: str, text: str) -> dict[str, Value]:
        """Tell people, before the journal is told: killed in between, they hear it twice."""
        what = "Drill" if declared.drill else "Recovery"
        since = f"{declared.declared_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        channels = self._send(
            once,
            f"{what}: objective {self._objective}: {told}",
            f"{text}\n\n{declared.what}\nDeclared by {declared.actor}, since {since}, "
            f"recovery {declared.recovery_id}.\n"
            "The restores go on. Their tasks and logs say what is open and why.",
        )
        return {"notified": channels}

    def _record(
        self, kind: EventKind, found: Progress, once: str, details: dict[str, Value]
    ) -> None:
        details |= {
            "used_seconds": round(found.used, 1),
            "limit_seconds": found.limit,
            "left_seconds": round(found.left, 1),
            "open": ", ".join(found.open),
        }
        self._journal.append(
            kind,
            self._objective,
            once=f"{once}:{self._objective}",
            actor=self._actor,
            details=details,
            at=self._now(),
        )

    def _send(self, once: str, subject: str, message: str) -> int:
        if once not in self._told:
            log.warning("%s", subject)
            try:
                self._told[once] = self._notify(subject, message)
            except Exception as error:  # noqa: BLE001 - a mail server must not stop the watch
                log.error("Nobody was told (%s): %s", type(error).__name__, subject)  # noqa: TRY400 - may hold a secret
                self._told[once] = 0
        return self._told[once]


def blind(error: BackupError, *, due: datetime, now: datetime) -> Sight:
    """Return what not being able to look means: waiting until `due`, and after it not knowing."""
    if now <= due:
        log.error("The journal cannot be read; it is tried again. %s", error)
        return Sight(Verdict.WAIT, str(error))
    over = quantity.duration((now - due).total_seconds())
    return Sight(
        Verdict.UNKNOWN,
        f"The limit has been over for {over}, and nobody can tell whether the objective was met: "
        f"the journal cannot be read. {error}",
    )


def _verdict(found: Progress) -> Verdict:
    if found.state is State.MET:
        return Verdict.MET
    if found.state in {State.BREACHED, State.MET_LATE}:
        return Verdict.BREACHED
    return Verdict.ENDED if found.ended else Verdict.WAIT
