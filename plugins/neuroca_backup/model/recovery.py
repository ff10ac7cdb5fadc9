"""A recovery: what was declared, the objectives in force, and the events of its journal.

All of it is plain data. What the words in an event's details mean is told in
`docs/reference/recovery-journal.md`.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal, Self, TypeVar

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationError,
    model_validator,
)

from neuroca_backup.errors import ConfigurationError, DamagedError
from neuroca_backup.model import document
from neuroca_backup.model.identity import Component

PREFIX = "recoveries"

_TIME_FORMAT = "%Y%m%dT%H%M%SZ"
_MOMENT_FORMAT = "%Y%m%dT%H%M%S.%fZ"
_RECOVERY = re.compile(
    r"(?P<time>[0-9]{8}T[0-9]{6}Z)-(?P<purpose>drill|recovery)-(?P<run>[0-9a-f]{8})"
)
_EVENT = re.compile(
    r"(?P<time>[0-9]{8}T[0-9]{6}\.[0-9]{6}Z)-(?P<kind>[a-z_]+)"
    r"-(?P<once>[0-9a-f]{16})-(?P<attempt>[0-9a-f]{8})\.json"
)
_ATTACHMENT = re.compile(r"[a-z][a-z0-9_-]{0,62}\.(json|md|html)")
_DECLARED = "declared.json"

Value = str | bool | int | FiniteFloat | None
_Model = TypeVar("_Model", bound=BaseModel)


class EventKind(StrEnum):
    """What can happen in a recovery."""

    DECLARED = "declared"
    ASSESSED = "assessed"
    APPROVED = "approved"
    REJECTED = "rejected"
    NOTIFIED = "notified"
    PROVISIONED = "provisioned"
    ANSWERED = "answered"
    STARTED = "started"
    RESTORED = "restored"
    FAILED = "failed"
    SKIPPED = "skipped"
    CHECKED = "checked"
    CONFIRMED = "confirmed"
    REDIRECTED = "redirected"
    BACKED_UP = "backed_up"
    WARNED = "warned"
    BREACHED = "breached"
    MET = "met"
    ENDED = "ended"


@dataclass(frozen=True, order=True, slots=True)
class RecoveryRef:
    """Which recovery; everything stored for it lies under `prefix` in every store.

    Raises:
        ConfigurationError: `recovery_id` is not one.
    """

    recovery_id: str

    def __post_init__(self) -> None:
        match = _RECOVERY.fullmatch(self.recovery_id)
        if match is None or _moment(match["time"], _TIME_FORMAT) is None:
            raise ConfigurationError(
                f"{self.recovery_id!r} is not the id of a recovery",
                remedy="They look like 20261123T020000Z-drill-1f0c9a3e; `neuroca-backup recoveries "
                "list` prints them.",
                value=self.recovery_id,
            )

    @classmethod
    def new(cls, *, at: datetime, drill: bool, run: str | None = None) -> RecoveryRef:
        """Return the recovery begun at `at` (aware), e.g. `20261123T020000Z-drill-1f0c9a3e`.

        Ids sort by UTC time. The same `at` and `run` always give the same id, so a task that is
        tried again goes on with the same recovery; without `run` the end of the id is random.
        """
        if at.tzinfo is None:
            raise ValueError(f"a recovery needs an aware datetime, got {at!r}")
        end = secrets.token_hex(4) if run is None else hashlib.sha256(run.encode()).hexdigest()[:8]
        purpose = "drill" if drill else "recovery"
        return cls(f"{at.astimezone(UTC).strftime(_TIME_FORMAT)}-{purpose}-{end}")

    @property
    def time(self) -> datetime:
        """When it was begun, in UTC."""
        match = _RECOVERY.fullmatch(self.recovery_id)
        assert match is not None  # noqa: S101 - checked at construction
        found = _moment(match["time"], _TIME_FORMAT)
        assert found is not None  # noqa: S101 - as above
        return found

    @property
    def drill(self) -> bool:
        """Whether it is a drill."""
        return "-drill-" in self.recovery_id

    @property
    def prefix(self) -> str:
        """Where everything of it lies."""
        return f"{PREFIX}/{self.recovery_id}"

    @property
    def declared_key(self) -> str:
        """The object that says what was declared."""
        return f"{self.prefix}/{_DECLARED}"

    @property
    def events_prefix(self) -> str:
        """The folder of the events."""
        return f"{self.prefix}/events"

    def attachment_key(self, name: str) -> str:
        """Return the key of a document that belongs to it, such as `plan.json` or `report.html`."""
        if _ATTACHMENT.fullmatch(name) is None or name == _DECLARED:
            raise ValueError(f"{name!r} cannot be the name of a document of a recovery")
        return f"{self.prefix}/{name}"


def is_recovery_key(key: str) -> bool:
    """Return whether `key` is of the layout described here."""
    prefix, _, rest = key.partition("/")
    recovery_id, _, name = rest.partition("/")
    try:
        RecoveryRef(recovery_id)
    except ConfigurationError:
        return False
    if prefix != PREFIX:
        return False
    folder, _, event = name.rpartition("/")
    if folder:
        return folder == "events" and EventName.parse(event) is not None
    return name == _DECLARED or _ATTACHMENT.fullmatch(name) is not None


class Objective(BaseModel):
    """How long a part of the system may be gone, in seconds since the disaster was declared.

    It is met when every one of `sources` is restored and checked, and every one of `checks`, which
    concern the whole system, has passed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    limit_seconds: float = Field(gt=0, allow_inf_nan=False)
    sources: tuple[str, ...] = Field(min_length=1)
    checks: tuple[str, ...] = ()


class Declared(BaseModel):
    """The head of a journal: what happened, to what, and what holds for its recovery.

    `declared_at` is when the disaster began to count; it may lie before the recovery. `waves` are
    the sources in the order of their restore: those of one wave are restored side by side, and a
    wave begins when the one before it has ended. `target` says in plain words where to.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    recovery_id: str
    what: str
    declared_at: AwareDatetime
    recorded_at: AwareDatetime
    actor: str
    drill: bool
    components: tuple[Component, ...] = Field(min_length=1)
    target: str
    objectives: Mapping[str, Objective]
    waves: tuple[tuple[str, ...], ...] = ()

    @model_validator(mode="after")
    def _agrees_with_its_id(self) -> Self:
        if RecoveryRef(self.recovery_id).drill is not self.drill:
            raise ValueError("the recovery id says another purpose than `drill`")
        return self

    @property
    def ref(self) -> RecoveryRef:
        """Which recovery this is."""
        return RecoveryRef(self.recovery_id)

    @property
    def sources(self) -> tuple[str, ...]:
        """Every source that is to be restored, in the order of the waves."""
        waves = [source for wave in self.waves for source in wave]
        rest = [source for one in self.objectives.values() for source in one.sources]
        return tuple(dict.fromkeys([*waves, *rest]))

    def encode(self) -> bytes:
        """Return the object's bytes."""
        return document.encode(self.model_dump(mode="json"))

    @classmethod
    def decode(cls, data: bytes, *, name: str, ref: RecoveryRef) -> Declared:
        """Return what `data` declares of `ref`; raise `DamagedError`, naming the object."""
        found = _validated(cls, document.decode(data, name=name), name=name)
        if found.recovery_id != ref.recovery_id:
            raise _damaged(name, f"is of another recovery, {found.recovery_id}")
        return found


class Event(BaseModel):
    """One thing that happened.

    `at` is when, by the clock of the machine that tells. `subject` is the source, the objective,
    the check or the store that it is about, or "". `actor` is who did it. A `checked` event says in
    `details` whether the check `passed`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: AwareDatetime
    kind: EventKind
    subject: str = ""
    actor: str
    details: Mapping[str, Value] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _says_what_a_check_found(self) -> Self:
        if self.kind is EventKind.CHECKED and not isinstance(self.details.get("passed"), bool):
            raise ValueError("a `checked` event needs `passed`, true or false, in its details")
        return self

    @property
    def passed(self) -> bool:
        """Whether this is a check that passed."""
        return self.kind is EventKind.CHECKED and self.details["passed"] is True


@dataclass(frozen=True, order=True, slots=True)
class EventName:
    """The name of an event's object: it sorts by time, and no two attempts have the same one.

    `once` is a digest of what keeps the same event from counting twice.
    """

    time: str
    kind: str
    once: str
    attempt: str

    @classmethod
    def of(cls, event: Event, *, once: str, attempt: str) -> EventName:
        """Return the name of `event`."""
        time = event.at.astimezone(UTC).strftime(_MOMENT_FORMAT)
        return cls(time=time, kind=event.kind.value, once=once_digest(once), attempt=attempt)

    @classmethod
    def parse(cls, name: str) -> EventName | None:
        """Return the parts of an object's name, or None where it is not an event's."""
        match = _EVENT.fullmatch(name)
        if match is None or match["kind"] not in set(EventKind):
            return None
        if _moment(match["time"], _MOMENT_FORMAT) is None:
            return None
        return cls(**match.groupdict())

    def __str__(self) -> str:
        return f"{self.time}-{self.kind}-{self.once}-{self.attempt}.json"


class Entry(BaseModel):
    """An event as it is stored; of all entries with the same `once` only the first one counts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    recovery_id: str
    once: str = Field(min_length=1)
    event: Event

    def encode(self) -> bytes:
        """Return the object's bytes."""
        return document.encode(self.model_dump(mode="json"))

    @classmethod
    def decode(cls, data: bytes, *, name: str, ref: RecoveryRef, parsed: EventName) -> Entry:
        """Return the entry in `data`; raise `DamagedError`, naming the object.

        It must be of `ref` and be what its own name, `parsed`, says.
        """
        found = _validated(cls, document.decode(data, name=name), name=name)
        said = EventName.of(found.event, once=found.once, attempt=parsed.attempt)
        if found.recovery_id != ref.recovery_id or said != parsed:
            raise _damaged(name, f"is another event, {said} of {found.recovery_id}")
        return found


def once_digest(once: str) -> str:
    """Return how `once` is written in the names of objects."""
    return hashlib.sha256(once.encode()).hexdigest()[:16]


def _validated(kind: type[_Model], body: dict[str, Any], *, name: str) -> _Model:
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]
        raise _damaged(name, f"is not valid: {first['loc']}: {first['msg']}") from None


def _damaged(name: str, problem: str) -> DamagedError:
    return DamagedError(
        f"{name} {problem}",
        remedy="Delete the object if nobody knows what it said; what it told is then missing.",
        key=name,
    )


def _moment(text: str, form: str) -> datetime | None:
    try:
        return datetime.strptime(text, form).replace(tzinfo=UTC)
    except ValueError:
        return None
