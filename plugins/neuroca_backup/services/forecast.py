"""How long a restore will take, from how long earlier ones took."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from neuroca_backup.catalog import Catalog, RestoreRecord
from neuroca_backup.errors import BackupError, ConfigurationError
from neuroca_backup.model.identity import BackupRef, Component

# Slower than every engine but the vector stores was measured to be, so rather too long than short.
ASSUMED_BYTES_PER_SECOND = 25_000_000
# What a restore takes however little there is to restore: throwaway servers, connections, checks.
ASSUMED_START_SECONDS = 10.0
_LOOKED_AT = 500
_COUNTED = 5


@dataclass(frozen=True, slots=True)
class Forecast:
    """How long a restore will take, in seconds; `basis` says in plain words what tells so."""

    seconds: float
    measured: bool
    basis: str


def forecast(catalog: Catalog, source: str, size: int) -> Forecast:
    """Return how long restoring `size` original bytes of `source` will take.

    The middle one of its five newest restores tells; without any, an assumption that is named.
    """
    try:
        records = catalog.restores(limit=_LOOKED_AT)
    except BackupError as error:
        return _assumed(size, f"the catalog could not be asked ({error.problem})")
    found = [rate for one in records if (rate := _rate(one, source)) is not None][:_COUNTED]
    if not found:
        return _assumed(size, f"no earlier restore of {source} is in the catalog")
    rate = median(found)
    count = "the last restore" if len(found) == 1 else f"the last {len(found)} restores"
    return Forecast(
        seconds=size / rate,
        measured=True,
        basis=f"measured: {count} of {source} ran at {rate / 1e6:.3g} MB/s",
    )


def _rate(record: RestoreRecord, source: str) -> float | None:
    """Return the original bytes a second of a restore of `source` that came to its end."""
    try:
        of = BackupRef(record.backup_id, Component.DATABASE).source
    except ConfigurationError:
        return None
    seconds = sum(record.seconds.values())
    if of != source or record.outcome != "restored" or not record.bytes_restored or seconds <= 0:
        return None
    return record.bytes_restored / seconds


def _assumed(size: int, why: str) -> Forecast:
    return Forecast(
        seconds=ASSUMED_START_SECONDS + size / ASSUMED_BYTES_PER_SECOND,
        measured=False,
        basis=f"assumed: {why}, so {ASSUMED_BYTES_PER_SECOND / 1e6:.0f} MB/s is taken",
    )
