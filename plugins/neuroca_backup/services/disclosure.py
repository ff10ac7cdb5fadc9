"""Showing data in clear: whether it needs an approval, and the record that it was done.

The record is made first, so that what is killed half way has still been written down.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from neuroca_backup.errors import AccessDeniedError, ConfigurationError
from neuroca_backup.model.identity import Classification
from neuroca_backup.services.audit import INTENDED, Audit
from neuroca_backup.services.classification import Act, allows

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Approval:
    """Who agreed that data is shown, and why; both empty where nobody was asked."""

    approved_by: str = ""
    reason: str = ""

    @classmethod
    def given(cls, approved_by: str | None, reason: str | None) -> Approval:
        """Return what was written on the command line.

        Raises:
            ConfigurationError: One of the two is missing or blank.
        """
        if approved_by is None and reason is None:
            return cls()
        found = cls((approved_by or "").strip(), (reason or "").strip())
        if not (found.approved_by and found.reason):
            lacking = "--reason" if found.approved_by else "--approved-by"
            raise ConfigurationError(
                f"An approval needs {lacking}",
                remedy="Write who agreed and why: --approved-by NAME --reason TEXT.",
            )
        return found


def require(
    shown: Mapping[str, Classification],
    act: Act,
    *,
    approval: Approval,
    audit: Audit,
) -> None:
    """Record that somebody is about to do `act` with everything `shown`, by what it is called.

    Raises:
        AccessDeniedError: Something shown needs an approval that was not given, or is not allowed
            at all; nothing was recorded.
        BackupError: It needed an approval, and no store took the record of it.
    """
    for name, classification in shown.items():
        decision = allows(classification, act)
        if not decision.allowed and not (decision.approvable and approval.approved_by):
            raise AccessDeniedError(
                f"{name}: {decision.reason}",
                remedy=decision.remedy,
                subject=name,
                classification=classification.value,
            )
    for name, classification in shown.items():
        log.info("%s is about to %s: %s", audit.actor, act, name)
        # What somebody had to agree to is not done unrecorded.
        record = audit.require if approval.approved_by else audit.note
        record(
            act.name.lower(),
            name,
            result=INTENDED,
            details={
                "classification": classification.value,
                "approved_by": approval.approved_by or None,
                "reason": approval.reason or None,
            },
        )
