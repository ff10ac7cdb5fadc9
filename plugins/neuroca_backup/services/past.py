"""The stores as they were at a moment: what an intruder has overwritten or deleted is back.

Only buckets that keep versions can tell. Nothing is written through such a view.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from neuroca_backup.errors import BackupError, ConfigurationError, TransientError
from neuroca_backup.stores import Store, Versioned

log = logging.getLogger(__name__)

REMEDY = (
    "If somebody has overwritten or deleted what was there, read the buckets as they were before "
    "that: --as-of TIME, or as_of in the form; this needs versioned buckets."
)


def moment(
    text: str, *, field: str, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> datetime:
    """Return the moment that a person wrote into `field`.

    Raises:
        ConfigurationError: It is no time, has no offset, or lies in the future.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise ConfigurationError(
            f"{field} {text!r} is not a time with an offset",
            remedy="Write it like 2026-11-23T02:00:00Z or 2026-11-23T04:00:00+02:00.",
            value=text,
        )
    if found > clock():
        raise ConfigurationError(
            f"{field} {text} lies in the future",
            remedy="Write a moment before the damage was done.",
            value=text,
        )
    return found


def as_of(stores: Mapping[str, Store], at: datetime) -> Mapping[str, Store]:
    """Return views of `stores` as they were at `at`; those that cannot tell are left out.

    Raises:
        ConfigurationError: None of them keeps versions; says of each why.
        TransientError: Those that might keep versions did not answer.
    """
    views: dict[str, Store] = {}
    problems: list[BackupError] = []
    for name, store in stores.items():
        try:
            views[name] = _view(store, at)
        except BackupError as error:
            log.warning("%s is left out: %s", name, error.problem)
            problems.append(error)
    if views:
        return views
    for problem in problems:
        if isinstance(problem, TransientError):
            raise problem
    raise ConfigurationError(
        f"No store can be read as it was at {at.isoformat(timespec='seconds')}: "
        + "; ".join(problem.problem for problem in problems),
        remedy="Only a bucket with versioning keeps what was overwritten. Restore what the stores "
        "hold now, or bring back a copy of them from before.",
        value=at.isoformat(),
    )


def _view(store: Store, at: datetime) -> Store:
    if isinstance(store, Versioned):
        return store.as_of(at)
    raise ConfigurationError(
        f"{store.location} (store {store.name}) keeps no versions",
        remedy="Read another store as it was.",
        store=store.name,
    )
