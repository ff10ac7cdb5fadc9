"""What may be done with data of a classification, and when classifications are to be reviewed.

Pure rules, so that the command, the DAGs and the documentation cannot disagree.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum

from neuroca_backup.errors import AccessDeniedError
from neuroca_backup.model.identity import Classification

# Counted in days, so that a review on 29 February comes due like any other.
REVIEW_PERIOD = timedelta(days=365)


class Act(StrEnum):
    """What shows the content of a backup or a source to people; each reads after "to"."""

    EXPORT_IN_CLEAR = "export it in clear"
    TEST_RESTORE_UNSANITISED = "restore it for a test without sanitising it"
    RESTORE_ELSEWHERE_UNSANITISED = (
        "restore it, unsanitised, to a place that is neither its own nor a sandbox"
    )
    SHOW_CONTENT = "write lines of it to a log or a file"


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether an act is allowed, why, and what to do where it is not (else empty).

    `approvable` says that one person's recorded approval allows it after all.
    """

    allowed: bool
    reason: str
    remedy: str = ""
    approvable: bool = False

    def require(self) -> None:
        """Do nothing where the act is allowed.

        Raises:
            AccessDeniedError: It is not; with this reason and remedy.
        """
        if not self.allowed:
            raise AccessDeniedError(self.reason, remedy=self.remedy)


@dataclass(frozen=True, slots=True)
class _Rule:
    """Up to which classification an act is free, and what helps above it."""

    freely: Classification
    remedy: str
    approvable: bool = False


_APPROVE = (
    "Ask somebody else to approve it, and add --approved-by NAME --reason TEXT; both are recorded."
)
_RULES = {
    Act.EXPORT_IN_CLEAR: _Rule(Classification.CONFIDENTIAL, _APPROVE, approvable=True),
    Act.TEST_RESTORE_UNSANITISED: _Rule(
        Classification.CONFIDENTIAL,
        "Leave sanitising on, or classify the source otherwise in backup.yaml.",
    ),
    Act.RESTORE_ELSEWHERE_UNSANITISED: _Rule(
        Classification.CONFIDENTIAL, _APPROVE, approvable=True
    ),
    Act.SHOW_CONTENT: _Rule(Classification.INTERNAL, "Run it on a terminal, which keeps nothing."),
}


def allows(classification: Classification | str, act: Act) -> Decision:
    """Return whether data of `classification` allows `act` without anybody's approval.

    A classification that this version does not know counts as restricted.
    """
    known, rule = read(classification), _RULES[act]
    if _rank(known) <= _rank(rule.freely):
        return Decision(allowed=True, reason=f"{known.capitalize()} data may be used so")
    return Decision(
        allowed=False,
        reason=f"It is {known}, and it is not allowed to {act}",
        remedy=rule.remedy,
        approvable=rule.approvable,
    )


def read(text: Classification | str) -> Classification:
    """Return the classification that a manifest names; an unknown word is `restricted`."""
    try:
        return Classification(text)
    except ValueError:
        return Classification.RESTRICTED


def strictest(found: Iterable[Classification | str]) -> Classification:
    """Return the strictest of `found`; of nothing, `restricted`.

    A backup keeps the classification of its day, its source may have another by now: both count.
    """
    return max(map(read, found), key=_rank, default=Classification.RESTRICTED)


def review_due(reviewed: date | None, *, now: datetime) -> str | None:
    """Return a sentence where the classifications are to be reviewed, None where they are not.

    `reviewed` is `classification.reviewed` of backup.yaml; `now` is aware.
    """
    remedy = (
        "Check `classification` of every source with the owners of the data, and write the day "
        "there, such as 2026-11-01."
    )
    if reviewed is None:
        return f"backup.classification.reviewed: nobody has said when it was last done. {remedy}"
    today = now.date()
    if reviewed > today:
        return f"backup.classification.reviewed: {reviewed} is still to come. {remedy}"
    if today - reviewed > REVIEW_PERIOD:
        return (
            f"backup.classification.reviewed: the last review, on {reviewed}, was more than a "
            f"year ago. {remedy}"
        )
    return None


def _rank(classification: Classification) -> int:
    return list(Classification).index(classification)
