"""The section `verification` of `backup.yaml`: how often stored backups are read back."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from neuroca_backup.settings.strict import Strict
from neuroca_backup.settings.values import Cron, Duration


class VerificationSettings(Strict):
    """When stored backups are read back, how often each copy, and how many of them in depth.

    Every copy in every store is read at least once within `window`. Of the copies of a run so many
    percent are also parsed by their engine, and so many more unsealed, at least one of each source
    unless it is 0. A run that has worked at a source for `longest` begins no further copy of it.
    """

    schedule: Cron = "0 7 * * *"
    window: Duration = timedelta(days=7)
    readable: int = Field(default=20, ge=0, le=100, strict=True)
    parsed: int = Field(default=10, ge=0, le=100, strict=True)
    longest: Duration = timedelta(hours=6)
