"""What earlier restores and restore tests tell: how often they succeed, and how fast they are.

Pure: it is worked out of the catalog's records.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from statistics import median
from typing import Any

from neuroca_backup.catalog import RestoreRecord
from neuroca_backup.errors import ConfigurationError
from neuroca_backup.model.identity import BackupRef, Component, is_part_of

# How a restore ends that came to its end; everything else says where it ended instead.
SUCCEEDED = "restored"
# Two in each half, or one odd restore would be a trend.
_FEWEST_FOR_A_TREND = 4
# What is measured is never quite the same twice.
_STEADY = 0.1
# How the records call what restores can be tried in: throwaway servers, or a test's own place.
_TEST_TARGETS = ("sandbox", "restore test")


@dataclass(frozen=True, slots=True)
class Rate:
    """How many of `total` restores succeeded."""

    succeeded: int
    total: int

    @property
    def share(self) -> float | None:
        """The share from 0 to 1; None where there was none, which is not success."""
        return self.succeeded / self.total if self.total else None

    def __str__(self) -> str:
        if not self.total:
            return "none"
        return f"{self.succeeded} of {self.total} ({100 * self.succeeded / self.total:.0f} %)"


@dataclass(frozen=True, slots=True)
class Trend:
    """How the newer half of the measurements compares with the older half.

    `change` is the relative change of the middle throughput (0.5: half as fast again, -0.5: half
    as fast), None where there are too few `observations` to tell.
    """

    change: float | None
    observations: int

    def __str__(self) -> str:
        if self.change is None:
            return f"too few to tell ({self.observations})"
        if abs(self.change) < _STEADY:
            return f"steady ({self.observations})"
        word = "faster" if self.change > 0 else "slower"
        return f"{abs(self.change):.0%} {word} ({self.observations})"


@dataclass(frozen=True, slots=True)
class History:
    """The restores of one source, real ones and tests.

    `p50` and `p95` are the throughput in original bytes a second that half, and 95 of 100, of the
    measured restores did not exceed; None without any. `last_test` (aware) is when the newest
    successful restore test ended, None where there was none.
    """

    source: str
    restores: Rate
    tests: Rate
    p50: float | None
    p95: float | None
    trend: Trend
    last_test: datetime | None

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        body = asdict(self)
        body["last_test"] = self.last_test.isoformat() if self.last_test else None
        for name in ("restores", "tests"):
            body[name]["share"] = getattr(self, name).share
        return body


def source_of(record: RestoreRecord) -> str | None:
    """Return the source that a restore was of, None where its backup id is none."""
    try:
        return BackupRef(record.backup_id, Component.DATABASE).source
    except ConfigurationError:
        return None


def is_of(record: RestoreRecord, source: str) -> bool:
    """Return whether a restore was of `source`, or of a part of it."""
    found = source_of(record)
    return found is not None and (found == source or is_part_of(found, source))


def is_test(record: RestoreRecord) -> bool:
    """Return whether a restore was a test: one that went where nobody uses what it brought."""
    return record.target.startswith(_TEST_TARGETS)


def throughput(record: RestoreRecord) -> float | None:
    """Return the original bytes a second of a restore that came to its end; None of any other."""
    seconds = sum(record.seconds.values())
    if record.outcome != SUCCEEDED or not record.bytes_restored or seconds <= 0:
        return None
    return record.bytes_restored / seconds


def of(records: Sequence[RestoreRecord], source: str) -> History:
    """Return the history of one source and its parts; `records` in any order, of any sources."""
    ours = sorted((one for one in records if is_of(one, source)), key=lambda one: one.started_at)
    rates = [rate for one in ours if (rate := throughput(one)) is not None]
    tests = [one for one in ours if is_test(one)]
    return History(
        source=source,
        restores=_rate(ours),
        tests=_rate(tests),
        p50=percentile(rates, 50),
        p95=percentile(rates, 95),
        trend=trend(rates),
        last_test=max((one.finished_at for one in tests if one.outcome == SUCCEEDED), default=None),
    )


def percentile(values: Sequence[float], percent: int) -> float | None:
    """Return the smallest of `values` that at least `percent` of 100 do not exceed."""
    if not values:
        return None
    return sorted(values)[math.ceil(len(values) * percent / 100) - 1]


def trend(values: Sequence[float]) -> Trend:
    """Return how the newer half compares with the older; `values` are the oldest first.

    Of an odd number the middle one belongs to neither half.
    """
    if len(values) < _FEWEST_FOR_A_TREND:
        return Trend(None, len(values))
    half = len(values) // 2
    older, newer = median(values[:half]), median(values[-half:])
    return Trend(newer / older - 1, len(values))


def _rate(records: Sequence[RestoreRecord]) -> Rate:
    return Rate(sum(one.outcome == SUCCEEDED for one in records), len(records))
