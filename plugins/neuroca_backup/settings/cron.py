"""When a cron expression of five fields comes due, in UTC.

croniter is imported at the first call: that costs more than reading a whole settings file.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

_FIELDS = 5


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


def _croniter() -> Any:
    from croniter import croniter  # noqa: PLC0415 - see the module's docstring

    return croniter
