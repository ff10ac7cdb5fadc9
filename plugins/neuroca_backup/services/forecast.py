"""How long a restore will take, from how long earlier ones took."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from neuroca_backup.catalog import Catalog, RestoreRecord
from neuroca_backup.errors import BackupError
from neuroca_backup.model.identity import RESTORE_ORDER, Component, whole_source
from neuroca_backup.services import history

# Slower than every engine but the vector stores was measured to be, so rather too long than short.
ASSUMED_BYTES_PER_SECOND = 25_000_000
# What a restore takes however little there is to restore: throwaway servers, connections, checks.
ASSUMED_START_SECONDS = 10.0
# An assumption may be wrong by so much, in either direction.
_ASSUMED_FACTOR = 4.0
LOOKED_AT = 500
_COUNTED = 5


@dataclass(frozen=True, slots=True)
class Forecast:
    """How long a restore will take, in seconds; `basis` says in plain words what tells so."""

    seconds: float
    measured: bool
    basis: str


@dataclass(frozen=True, slots=True)
class Range:
    """A forecast with its uncertainty: it will take from `low` to `high`, `seconds` at a guess.

    All are in seconds. `measured` says that nothing in it is assumed; `basis` what tells so.
    """

    low: float
    seconds: float
    high: float
    measured: bool
    basis: str

    @classmethod
    def one_after_another(cls, steps: Sequence[Range]) -> Range:
        """Return how long all of `steps` take, none of which begins before the one before ends."""
        return cls(
            low=sum(one.low for one in steps),
            seconds=sum(one.seconds for one in steps),
            high=sum(one.high for one in steps),
            measured=all(one.measured for one in steps),
            basis="; ".join(dict.fromkeys(one.basis for one in steps)),
        )

    @classmethod
    def side_by_side(cls, steps: Sequence[Range]) -> Range:
        """Return how long all of `steps` take that begin together: as long as the longest."""
        return cls(
            low=max(one.low for one in steps),
            seconds=max(one.seconds for one in steps),
            high=max(one.high for one in steps),
            measured=all(one.measured for one in steps),
            basis="; ".join(dict.fromkeys(one.basis for one in steps)),
        )


@dataclass(frozen=True, slots=True)
class Outlook:
    """How long the components and the full system take to restore at today's sizes.

    `alone` is each component by itself, its sources side by side; `reached` when it is back where
    everything was lost, and what goes before it is restored first; `full_system` all of it.
    `unknown` are the sources without a verified backup, of which nothing can be said: what they
    belong to is left out, and so is the full system.
    """

    alone: Mapping[Component, Range]
    reached: Mapping[Component, Range]
    full_system: Range | None
    unknown: tuple[tuple[Component, str], ...] = ()


def forecast(catalog: Catalog, source: str, size: int) -> Forecast:
    """Return how long restoring `size` original bytes of `source` will take.

    The middle one of its five newest restores tells; without any, an assumption that is named.
    """
    try:
        records = catalog.restores(limit=LOOKED_AT)
    except BackupError as error:
        why = f"the catalog could not be asked ({error.problem})"
        return Forecast(_assumed(size), measured=False, basis=_assumption(why))
    rates = _rates(records, source)
    if not rates:
        return Forecast(_assumed(size), measured=False, basis=_assumption(_unmeasured(source)))
    return Forecast(seconds=size / median(rates), measured=True, basis=_measured(source, rates))


def range_of(records: Sequence[RestoreRecord], source: str, size: int) -> Range:
    """Return how long restoring `size` original bytes of `source` will take, with uncertainty.

    The five newest restores tell: it goes as fast as the fastest and as slow as the slowest of
    them, both widened by 1 + 1/n for n restores: to double and half for a single one. Without any
    the assumption may be wrong by four.
    """
    rates = _rates(records, source)
    if not rates:
        guess = _assumed(size)
        return Range(
            low=guess / _ASSUMED_FACTOR,
            seconds=guess,
            high=guess * _ASSUMED_FACTOR,
            measured=False,
            basis=_assumption(_unmeasured(source)),
        )
    widened = 1 + 1 / len(rates)
    return Range(
        low=size / max(rates) / widened,
        seconds=size / median(rates),
        high=size / min(rates) * widened,
        measured=True,
        basis=_measured(source, rates),
    )


def outlook(
    records: Sequence[RestoreRecord],
    sizes: Iterable[tuple[Component, str, int | None]],
) -> Outlook:
    """Return how long everything takes; `sizes` are component, source or part, and bytes.

    A full recovery goes by priority: the configuration, then the databases side by side, then the
    memory tiers, the models and the logs. It is a sum over these steps of the longest source in
    each; the parts of one source count one after another. None is a size that is not known.
    """
    parts: dict[Component, dict[str, list[Range]]] = {}
    unknown: list[tuple[Component, str]] = []
    lost: set[Component] = set()
    for component, source, size in sizes:
        if size is None:
            unknown.append((component, source))
            lost.add(component)
            continue
        by_source = parts.setdefault(component, {})
        by_source.setdefault(whole_source(source), []).append(range_of(records, source, size))
    alone = {
        component: Range.side_by_side(
            [Range.one_after_another(ranges) for ranges in parts[component].values()]
        )
        for component in RESTORE_ORDER
        if component in parts and component not in lost
    }
    reached: dict[Component, Range] = {}
    steps: list[Range] = []
    for component in RESTORE_ORDER:
        if component in lost:
            break  # nothing can be said of what comes after it
        if component in alone:
            steps.append(alone[component])
            reached[component] = Range.one_after_another(steps)
    full = Range.one_after_another(steps) if steps and not lost else None
    return Outlook(alone=alone, reached=reached, full_system=full, unknown=tuple(unknown))


def _rates(records: Sequence[RestoreRecord], source: str) -> list[float]:
    """Return the throughput of the newest restores of `source`; `records` are newest first.

    A part that was never restored is measured by the others of its source.
    """
    ours = [one for one in records if history.source_of(one) == source]
    ours = ours or [one for one in records if history.is_of(one, whole_source(source))]
    return [rate for one in ours if (rate := history.throughput(one)) is not None][:_COUNTED]


def _measured(source: str, rates: Sequence[float]) -> str:
    count = "the last restore" if len(rates) == 1 else f"the last {len(rates)} restores"
    return f"measured: {count} of {source} ran at {median(rates) / 1e6:.3g} MB/s"


def _unmeasured(source: str) -> str:
    return f"no earlier restore of {source} is in the catalog"


def _assumption(why: str) -> str:
    return f"assumed: {why}, so {ASSUMED_BYTES_PER_SECOND / 1e6:.0f} MB/s is taken"


def _assumed(size: int) -> float:
    return ASSUMED_START_SECONDS + size / ASSUMED_BYTES_PER_SECOND
