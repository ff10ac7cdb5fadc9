"""The section `monitor` of `backup.yaml`: when the objectives are looked at, and by what rules."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from neuroca_backup.settings.strict import Strict
from neuroca_backup.settings.values import Cron, Duration


class MonitorSettings(Strict):
    """When the objectives are looked at, and what is out of the ordinary.

    `warn_at` is in percent of an objective. A full backup that has lost more than `most_drop`
    percent of its size or content, against the middle one of the `compared_with` full ones before
    it, is suspicious. `restore_tests` is how old the last successful restore test of a source may
    be. What is still wrong after `repeat` is told again.
    """

    schedule: Cron = "30 * * * *"
    warn_at: int = Field(default=80, ge=1, le=100, strict=True)
    most_drop: int = Field(default=50, ge=1, le=99, strict=True)
    compared_with: int = Field(default=7, ge=1, le=100, strict=True)
    restore_tests: Duration = timedelta(days=92)
    repeat: Duration = timedelta(hours=24)
