"""How a recovery ended: everything that had to come back has, or what has not is named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from neuroca_backup.model.recovery import Declared, Event, EventKind
from neuroca_backup.services.recovery.states import States

RECOVERED, INCOMPLETE, NOT_APPROVED = "recovered", "incomplete", "not approved"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome in one word, and every reason why it is not better."""

    outcome: str
    reasons: tuple[str, ...]

    @property
    def well(self) -> bool:
        """Whether nothing is left to be mended."""
        return self.outcome == RECOVERED and not self.reasons


def verdict(declared: Declared, events: Sequence[Event], *, approved: bool) -> Verdict:
    """Judge by what the journal says was done; what it does not say was not done."""
    if not approved:
        rejections = [one for one in events if one.kind is EventKind.REJECTED]
        why = rejections[-1].details.get("comment") if rejections else "nobody approved the plan"
        return Verdict(NOT_APPROVED, (f"nothing was touched: {why}",))
    states = States(events)
    wanted = {check for one in declared.objectives.values() for check in one.checks}
    reasons = [
        *(
            f"{source} is not back{_last_problem(events, source)}"
            for source in declared.sources
            if states.back_at(source) is None
        ),
        *(
            f"the check {check} has not passed{_last_problem(events, check)}"
            for check in sorted(wanted)
            if states.passed_at(check) is None
        ),
    ]
    return Verdict(INCOMPLETE if reasons else RECOVERED, tuple(reasons))


def _last_problem(events: Sequence[Event], subject: str) -> str:
    told = [one.details.get("problem") for one in events if one.subject == subject]
    found = [one for one in told if one]
    return f": {found[-1]}" if found else ""
