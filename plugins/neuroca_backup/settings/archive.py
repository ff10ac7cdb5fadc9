"""What goes to the tertiary store, how long it stays there, and what no store may delete."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Literal

from neuroca_backup.model.identity import Component
from neuroca_backup.settings.strict import Strict
from neuroca_backup.settings.values import Duration

StorageClass = Literal["STANDARD", "STANDARD_IA", "GLACIER_IR", "GLACIER", "DEEP_ARCHIVE"]

LEAST_IN_TERTIARY = timedelta(days=365)


class Copying(StrEnum):
    """Which backups of a source are copied to the tertiary store."""

    ALL = "all"
    WEEKLY = "weekly"
    MONTHLY = "monthly"
    NONE = "none"


class ArchiveSettings(Strict):
    """Which backups of each component `storage.tertiary` gets.

    `monthly` is the first of each calendar month (UTC), `weekly` of each week from Monday; each
    comes with all that it needs to be restored from that store alone.
    """

    database: Copying = Copying.MONTHLY
    memory_tiers: Copying = Copying.MONTHLY
    configuration: Copying = Copying.MONTHLY
    model_weights: Copying = Copying.ALL
    logs: Copying = Copying.MONTHLY

    def of(self, component: Component) -> Copying:
        """Return which backups of `component` are copied."""
        found: Copying = getattr(self, component.value)
        return found


class TertiaryRetentionSettings(Strict):
    """How long the copies in the tertiary store are kept, from a backup's start.

    What is not written is a year, or the component's own retention where that is longer.
    """

    database: Duration | None = None
    memory_tiers: Duration | None = None
    configuration: Duration | None = None
    model_weights: Duration | None = None
    logs: Duration | None = None

    def of(self, component: Component, *, nearby: timedelta) -> timedelta:
        """Return how long copies of `component` are kept there, those elsewhere for `nearby`."""
        period: timedelta | None = getattr(self, component.value)
        return max(LEAST_IN_TERTIARY, nearby) if period is None else period


class LockSettings(Strict):
    """Object Lock: the bucket itself refuses to delete a backup before its retention is over.

    In mode `governance` who has s3:BypassGovernanceRetention still can, in mode `compliance`
    nobody can, not even the account's root. `margin` is added to the component's retention.
    """

    mode: Literal["governance", "compliance"]
    margin: Duration = timedelta(days=1)
