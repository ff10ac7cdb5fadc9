"""The report of a recovery as plain data; docs/reference/recovery-journal.md describes its JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict

from neuroca_backup.model.recovery import Value


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Attempt(_Part):
    """One restore of a source: all that lies between its beginning and its end.

    `outcome` is `back`, `restored` (not checked), `failed` or `open`: nothing says how it ended.
    """

    started_at: AwareDatetime
    restored_at: AwareDatetime | None = None
    ended_at: AwareDatetime | None = None
    outcome: Literal["back", "restored", "failed", "open"] = "open"
    problem: str = ""
    forecast_seconds: float | None = None


class SourceReport(_Part):
    """What became of one source.

    `stage` is that of `services.recovery.states.Stage`. `lost_seconds` is the recovery point that
    was achieved: from the moment that was brought back to the disaster. `within_rpo` is None where
    it or the objective is not known. `covered_by` is the source that brought it back in its stead.
    """

    source: str
    stage: str
    back_at: AwareDatetime | None
    back_seconds: float | None
    backup_id: str = ""
    stores: str = ""
    consistent_at: AwareDatetime | None = None
    lost_seconds: float | None = None
    rpo_seconds: float | None = None
    within_rpo: bool | None = None
    size: int | None = None
    seconds: float | None = None
    fallbacks: str = ""
    passed_over: str = ""
    covered_by: str = ""
    reason: str = ""
    attempts: tuple[Attempt, ...] = ()


class Warned(_Part):
    """A level of an objective that was reached, in percent of its limit."""

    at: AwareDatetime
    percent: int


class ObjectiveReport(_Part):
    """How an objective went; `used_seconds` is the recovery time that was achieved.

    `state` is `met`, `met late`, `breached`, `running`, or `not met` where the recovery ended
    without it. `forecast_seconds` is when it will be met, while something is open and that can be
    told.
    """

    objective: str
    state: str
    limit_seconds: float
    used_seconds: float
    forecast_seconds: float | None = None
    open: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    warned: tuple[Warned, ...] = ()
    breached_at: AwareDatetime | None = None


class Decision(_Part):
    """An approval, a rejection or a confirmation; `plan` is the digest of what was decided on."""

    at: AwareDatetime
    kind: str
    actor: str
    plan: str = ""
    comment: str = ""


class Failure(_Part):
    """Something that failed, and what to do about it."""

    at: AwareDatetime
    subject: str
    problem: str
    remedy: str = ""


class Check(_Part):
    """The newest result of a check of the whole system; `passed` is None where it never ran."""

    check: str
    passed: bool | None
    at: AwareDatetime | None = None
    problem: str = ""


class Happened(_Part):
    """One event; `seconds` counts from the declared disaster."""

    at: AwareDatetime
    seconds: float
    kind: str
    subject: str
    actor: str
    details: Mapping[str, Value]


class Report(_Part):
    """Everything about one recovery.

    `complete` is whether every source is back, every check of the system passed, and nothing of
    the journal was damaged, or missing in a store that answered. `lost_seconds` is the most that
    any source lost, `skew_seconds` the distance between the earliest and the latest moment that
    was brought back; both are None while they are not known of every source. `questions` are what
    this recovery asks those who look back.
    """

    version: Literal[1] = 1
    recovery_id: str
    drill: bool
    what: str
    target: str
    actor: str
    components: tuple[str, ...]
    declared_at: AwareDatetime
    recorded_at: AwareDatetime
    ended_at: AwareDatetime | None
    outcome: str
    written_at: AwareDatetime
    complete: bool
    lost_seconds: float | None
    skew_seconds: float | None
    objectives: tuple[ObjectiveReport, ...]
    sources: tuple[SourceReport, ...]
    checks: tuple[Check, ...]
    decisions: tuple[Decision, ...]
    failures: tuple[Failure, ...]
    questions: tuple[str, ...]
    findings: tuple[str, ...]
    unreachable: Mapping[str, str]
    events: tuple[Happened, ...]
