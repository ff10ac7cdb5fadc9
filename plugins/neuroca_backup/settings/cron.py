"""When a cron expression of five fields comes due, in UTC.

croniter is imported at the first call: that costs more than reading a whole settings file.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

_FIELDS = 5
# Any start will do; a leap year's first day, so that a walk meets the longest months early.
_START = datetime(2028, 1, 1, tzinfo=UTC)
# A cron expression has shown all its gaps but those of rare leap days after this time.
_HORIZON = timedelta(days=400)
# A bound on the work for objectives of minutes; then the days looked at are fewer.
_MOST_STEPS = 2000


def is_cron(text: str) -> bool:
    """Return whether `text` is a cron expression of five fields that gives the same times always.

    `R`, a time drawn afresh whenever the file is read, is refused for that reason.
    """
    fields = text.split()
    if len(fields) != _FIELDS or any(field.upper().startswith("R") for field in fields):
        return False
    valid: bool = _croniter().is_valid(text)
    return valid


def next_run(cron: str, *, after: datetime) -> datetime:
    """Return the first time strictly after `after` (aware); raise `ValueError` if there is none."""
    due: datetime = _croniter()(cron, after).get_next(datetime)
    return due


def last_run(cron: str, *, until: datetime) -> datetime:
    """Return the last time not after `until`, a whole second."""
    due: datetime = _croniter()(cron, until + timedelta(seconds=1)).get_prev(datetime)
    return due


def gap_longer_than(cron: str, limit: timedelta) -> timedelta | None:
    """Return a time between two neighbouring runs of `cron` that is longer than `limit`, or None.

    Each step goes to the last run within `limit` of the present one: where that is the present
    one itself, the next is too far away.
    """
    run = next_run(cron, after=_START)
    for _ in range(_MOST_STEPS):
        if run > _START + _HORIZON:
            break
        last = last_run(cron, until=run + limit)
        if last <= run:
            return next_run(cron, after=run) - run
        run = last
    return None


def _croniter() -> Any:
    from croniter import croniter  # noqa: PLC0415 - see the module's docstring

    return croniter
