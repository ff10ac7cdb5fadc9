"""The plan of a recovery: what was found, what comes back from where, in which order.

It is stored with the journal. What people approve is its digest, which covers all that decides
what is read and what is written, and nothing that changes by itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from neuroca_backup.errors import DamagedError
from neuroca_backup.model import document
from neuroca_backup.model.identity import Component
from neuroca_backup.model.tickets import RestorePlan
from neuroca_backup.services.forecast import Forecast
from neuroca_backup.services.proposal import Item

PLAN_JSON, PLAN_MARKDOWN = "plan.json", "plan.md"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Reached(_Part):
    """Whether something answers: a source, a store, or a key. `detail` says what it answered.

    `answers` is None for what could not be asked; that is not the same as well.
    """

    kind: Literal["source", "store", "key"]
    name: str
    answers: bool | None
    detail: str


class PlannedSource(_Part):
    """What happens to one source; `plan` is None where it cannot be restored, then see `problem`.

    `levels` is how far the backup was proven in each store. `brings_back` is the moment whose
    state it holds. `covered_by` is the database that holds the same data, "" for none: the source
    is then restored only where it is `newer`, or that database's restore failed. `form` is the
    restore form that its tasks read.
    """

    source: str
    component: Component
    plan: RestorePlan | None = None
    problem: str = ""
    to: str = ""
    saved: str = ""
    forecast: Forecast | None = None
    levels: Mapping[str, str] = {}
    brings_back: AwareDatetime | None = None
    loss_seconds: float | None = None
    covered_by: str = ""
    newer: bool = False
    form: Mapping[str, Any] = {}

    @property
    def item(self) -> Item:
        """The same in the words of a restore's proposal."""
        if self.plan is None:
            return Item(source=self.source, problem=self.problem)
        return Item(
            source=self.source,
            plan=self.plan,
            to=self.to,
            saved=self.saved,
            forecast=self.forecast,
        )

    @property
    def left_to(self) -> str:
        """The database that brings this source back, "" where it is restored by itself."""
        return "" if self.newer else self.covered_by


class PlannedComponent(_Part):
    """A component: its set ("" where its sources are not of one), and what is lost of its data.

    `loss_seconds` is from the oldest moment that comes back to the disaster.
    """

    component: Component
    set_id: str = ""
    skew_seconds: float | None = None
    loss_seconds: float | None = None
    rpo: timedelta | None = None
    notes: tuple[str, ...] = ()

    @property
    def within_rpo(self) -> bool | None:
        """Whether the loss is within the objective; None where either is not known."""
        if self.rpo is None or self.loss_seconds is None:
            return None
        return self.loss_seconds <= self.rpo.total_seconds()


class Estimate(_Part):
    """How one RTO looks: seconds gone since the disaster, and those that restores will still take.

    `best` is with all of a priority side by side, `worst` with one after another; provisioning and
    approvals are in neither. `known` is False where a source's time is assumed or it has no plan.
    """

    objective: str
    limit_seconds: float
    used_seconds: float
    best_seconds: float
    worst_seconds: float
    known: bool

    @property
    def outlook(self) -> str:
        """The judgement in plain words."""
        if self.used_seconds > self.limit_seconds:
            return "already missed"
        if self.used_seconds + self.worst_seconds <= self.limit_seconds:
            return "likely to be met" if self.known else "to be met if the assumptions hold"
        if self.used_seconds + self.best_seconds <= self.limit_seconds:
            return "at risk"
        return "likely to be missed"


class RecoveryPlan(_Part):
    """The whole plan; `priorities` are names and their sources, the first priority first."""

    version: Literal[1] = 1
    recovery_id: str
    what_happened: str
    actor: str
    declared_at: AwareDatetime
    made_at: AwareDatetime
    recover_to: str
    target: str
    prefer_store: str
    allow_older: bool
    approvals: int
    components: tuple[PlannedComponent, ...]
    sources: tuple[PlannedSource, ...]
    priorities: tuple[tuple[str, tuple[str, ...]], ...]
    reached: tuple[Reached, ...] = ()
    estimates: tuple[Estimate, ...] = ()
    provision: tuple[str, ...] = ()
    redirect: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    team: Mapping[str, str] = {}
    channel: str | None = None

    @property
    def sha256(self) -> str:
        """The digest (hex) of what is going to be done."""
        facts = {
            "version": self.version,
            "recovery_id": self.recovery_id,
            "target": self.target,
            "approvals": self.approvals,
            "priorities": self.priorities,
            "provision": self.provision,
            "redirect": self.redirect,
            "services": self.services,
            "sources": [
                {**one.item.facts(), "left_to": one.left_to, "form": dict(one.form)}
                for one in self.sources
            ],
        }
        return hashlib.sha256(document.canonical(facts)).hexdigest()

    @property
    def drill(self) -> bool:
        """Whether it is a drill."""
        return self.target == "drill"

    @property
    def problems(self) -> dict[str, str]:
        """Why a source cannot be restored, by its name."""
        return {
            one.source: one.problem
            for one in self.sources
            if one.plan is None and not one.covered_by
        }

    def of(self, priority: str) -> Iterator[tuple[int, PlannedSource]]:
        """Yield the sources of a priority, each with its place among all sources."""
        chosen = dict(self.priorities).get(priority, ())
        return ((at, one) for at, one in enumerate(self.sources) if one.source in chosen)

    def encode(self) -> bytes:
        """Return the document's bytes."""
        return document.encode(self.model_dump(mode="json"))

    @classmethod
    def decode(cls, data: bytes, *, name: str) -> RecoveryPlan:
        """Return the plan in `data`; raise `DamagedError`, naming it, where it is not one."""
        try:
            return cls.model_validate(document.decode(data, name=name))
        except ValidationError as error:
            first = error.errors()[0]
            raise DamagedError(
                f"{name} is not a plan: {first['loc']}: {first['msg']}",
                remedy="Clear the task `assess.plan`: it makes another one.",
                key=name,
            ) from None


def recovered(sources: Sequence[PlannedSource]) -> dict[Component, tuple[str, ...]]:
    """Return the sources that have to come back by component; what is left as it is has not."""
    wanted = [one for one in sources if one.plan is not None or not one.covered_by]
    return {
        component: tuple(one.source for one in wanted if one.component is component)
        for component in Component
        if any(one.component is component for one in wanted)
    }
