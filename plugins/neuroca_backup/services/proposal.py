"""What a restore is going to do, in words for the person who decides, and as one digest.

The digest covers everything that decides what is read and what is replaced, and nothing that may
change by itself, such as the time that it will take: two equal digests mean the same restore.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from neuroca_backup.model.quantity import duration, size
from neuroca_backup.model.tickets import RestorePlan
from neuroca_backup.services.forecast import Forecast

_VERSION = 1


@dataclass(frozen=True, slots=True)
class Item:
    """One source's part: its plan, where it goes, how long it will take; or why there is none.

    `saved` says what becomes of the data that it replaces, "" where it replaces none; `retrieval`
    what has to be had from an archive first, and how long that takes.
    """

    source: str
    plan: RestorePlan | None = None
    to: str = ""
    saved: str = ""
    forecast: Forecast | None = None
    problem: str = ""
    retrieval: str = ""

    def facts(self) -> dict[str, Any]:
        """Return what the digest covers."""
        if self.plan is None:
            return {"source": self.source, "plan": None}
        plan = self.plan.to_json()
        # Which store answers first may change, and does not change what is restored.
        plan["stores"] = sorted(plan["stores"])
        del plan["passed_over"]
        return {"source": self.source, "plan": plan, "to": self.to, "saved": self.saved}

    def lines(self) -> list[str]:
        """Return what is done, a line a fact."""
        plan = self.plan
        if plan is None:
            return [f"{self.source}: CANNOT be restored: {self.problem}"]
        verified = "verified" if plan.verified else "NEVER VERIFIED"
        found = [
            f"{self.source}: {plan.backup_id}, {verified}, taken {plan.taken_at}",
            f"{size(plan.plain_size)} in {plan.members} members, engine {plan.engine}",
            f"read from {', then '.join(plan.stores)}"
            + (f", as they were at {plan.as_of}" if plan.as_of else ""),
            f"restored to {self.to}",
        ]
        if len(plan.chain) > 1:
            found.insert(1, f"chain: {' -> '.join(plan.chain)}")
        if plan.until:
            found.append(f"the state of {plan.until}")
        if plan.only:
            found.append(f"only {', '.join(plan.only)}")
        if self.saved:
            found.append(self.saved)
        if plan.allow_older:
            found.append("an older verified backup is taken where no store has this one whole")
        if self.retrieval:
            found.append(self.retrieval)
        if self.forecast is not None:
            after = " after that" if self.retrieval else ""
            found.append(f"about {duration(self.forecast.seconds)}{after} ({self.forecast.basis})")
        return [*found, *plan.passed_over]


@dataclass(frozen=True, slots=True)
class Proposal:
    """All that one run is going to do; `services` are stopped meanwhile, in this order."""

    items: Sequence[Item]
    services: Sequence[str] = ()

    @property
    def sha256(self) -> str:
        """The digest (hex) of what is going to be done."""
        facts = {
            "version": _VERSION,
            "services": list(self.services),
            "items": [item.facts() for item in self.items],
        }
        text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def lines(self) -> list[str]:
        """Return what is done, a line a fact; those of one source begin with its name."""
        lines = []
        for item in self.items:
            first, *others = item.lines()
            lines += [first, *(f"  {line}" for line in others)]
        if self.services:
            lines.append(f"Stopped meanwhile: {', '.join(self.services)}")
        return lines


def saved_words(*, replaces: bool, keeps: bool, wanted: bool) -> str:
    """Return what becomes of the data that a restore replaces; "" where it replaces none."""
    if not replaces:
        return ""
    if keeps:
        return "replaces what is there, which is kept beside under another name"
    if wanted:
        return "replaces what is there, which is backed up and verified first"
    return "replaces what is there, which is NOT SAVED"
