"""The options with which a person says who agreed to an export in clear."""

# ruff: noqa: PLC0415 - `--help` must not pay for what the commands need

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from neuroca_backup.cli.reporting import line

if TYPE_CHECKING:
    from neuroca_backup.model.identity import Classification
    from neuroca_backup.runtime import Runtime

ApprovedBy = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Who agreed to it; needed for what is restricted."),
]
Reason = Annotated[
    str | None, typer.Option(metavar="TEXT", help="Why, for the record; with --approved-by.")
]


def require_export(
    runtime: Runtime,
    shown: Mapping[str, Classification],
    *,
    approved_by: str | None,
    reason: str | None,
) -> None:
    """Refuse an export in clear that its classification does not allow, and record any other.

    `shown` is what is exported, by the name of the source or the id of the backup.
    """
    from neuroca_backup.services import disclosure
    from neuroca_backup.services.classification import Act

    approval = disclosure.Approval.given(approved_by, reason)
    disclosure.require(shown, Act.EXPORT_IN_CLEAR, approval=approval, audit=runtime.audit)
    if approval.approved_by:
        line(f"recorded: approved by {approval.approved_by}: {approval.reason}")
