"""Archives: how quickly what lies in one can be had back, as AWS publishes it.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/restoring-objects-retrieval-options.html
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from neuroca_backup.errors import ConfigurationError


class RetrievalTier(StrEnum):
    """How urgently an object is retrieved: the quicker, the dearer."""

    EXPEDITED = "expedited"
    STANDARD = "standard"
    BULK = "bulk"


@dataclass(frozen=True, slots=True)
class Wait:
    """How long a retrieval takes: usually at least `least`, at most `most`."""

    least: timedelta
    most: timedelta


def _hours(least: float, most: float) -> Wait:
    return Wait(timedelta(hours=least), timedelta(hours=most))


# GLACIER is what S3 calls Glacier Flexible Retrieval. GLACIER_IR is no archive: it reads at once.
# AWS gives one figure for Deep Archive, "within"; half of it stands for the least.
ARCHIVES = {
    "GLACIER": {
        RetrievalTier.EXPEDITED: _hours(1 / 60, 5 / 60),
        RetrievalTier.STANDARD: _hours(3, 5),
        RetrievalTier.BULK: _hours(5, 12),
    },
    "DEEP_ARCHIVE": {
        RetrievalTier.STANDARD: _hours(6, 12),
        RetrievalTier.BULK: _hours(24, 48),
    },
}


def expected(storage_class: str, tier: RetrievalTier) -> Wait:
    """Return how long AWS takes to make an object of `storage_class` readable.

    Raises:
        ConfigurationError: The class has no such tier; names those it has.
    """
    tiers = ARCHIVES.get(storage_class, {})
    if tier not in tiers:
        named = ", ".join(tiers) or "none, as it is no archive"
        raise ConfigurationError(
            f"{storage_class} has no retrieval tier {tier.value!r}",
            remedy=f"Its tiers: {named}.",
            value=tier.value,
        )
    return tiers[tier]
