"""The section `restore_test` of `backup.yaml`: when backups are restored to see that it works."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from neuroca_backup.settings.cron import gap_longer_than
from neuroca_backup.settings.strict import Strict
from neuroca_backup.settings.values import ConnectionId, Cron, SourceName, format_duration, refused

# The runbook asks for a test every quarter; the longest quarter has so many days.
QUARTER = timedelta(days=92)
_WEEKLY = "0 8 * * 1"


def _quarterly(cron: str) -> str:
    gap = None if cron == _WEEKLY else gap_longer_than(cron, QUARTER)
    if gap is not None:
        raise refused(
            f"leaves {format_duration(gap)} between two restore tests, and the runbook asks for "
            "one every quarter",
            "Write a cron expression that comes due at least once in 92 days, such as "
            '"0 8 1 */3 *".',
        )
    return cron


class RestoreTestSettings(Strict):
    """When the newest backups are restored and looked at, and where.

    `sandbox` is `process` for throwaway servers on the worker, or `connection` for servers of an
    isolated environment; `connections` says by source which those are.
    """

    schedule: Annotated[Cron, AfterValidator(_quarterly)] = _WEEKLY
    sandbox: Literal["process", "connection"] = "process"
    connections: dict[SourceName, ConnectionId] = Field(default_factory=dict)
