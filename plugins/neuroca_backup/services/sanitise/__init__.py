"""Sanitising a restored copy before anybody looks at it, and proving that nothing is left.

`sanitise` works on a copy alone: whoever calls it has refused every production server
(`services/targets.py`). The key of a run is made here, and kept nowhere.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from neuroca_backup.errors import ConfigurationError, PermanentError
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.services.sanitise import copies
from neuroca_backup.services.sanitise.copies import Change
from neuroca_backup.services.sanitise.evidence import Evidence, require_replaced, search
from neuroca_backup.services.sanitise.masking import Masker
from neuroca_backup.settings import RuleSettings, Settings

__all__ = ["Change", "Outcome", "readable", "require_fitting", "sanitise"]

_COMPARED = 1000  # values at each place that are compared with those of before
_SAMPLE = 5  # records of each table, collection or database
# The word with which the rules of a source begin, by its engine; files and others have none.
_WORDS: Mapping[str, str] = {
    "postgresql": "table",
    "postgresql_physical": "table",
    "airflow_metadata": "table",
    "mongodb": "collection",
    "episodic_memory": "collection",
    "redis_rdb": "keys",
    "working_memory": "keys",
    "semantic_memory": "collection",
    **dict.fromkeys(copies.VECTOR_STORES, "collection"),
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was changed by which rule, and how it was proven.

    `searched` personal values, seen before, were looked for in the `read` bytes of the copy and not
    found. `absent` are the places of optional rules that the copy does not have.
    """

    changes: tuple[Change, ...]
    absent: tuple[str, ...]
    searched: int
    read: int
    seconds: float

    def notes(self) -> Iterator[str]:
        """Yield a sentence for every rule, and what proves them."""
        for one in self.changes:
            yield f"Sanitised {one.place}: {one.action}, {one.count:,} values"
        for place in self.absent:
            yield f"Not in the copy, and optional: {place}"
        if not self.searched:
            yield (
                "No personal value was long enough to be searched for in the copy; what stands at "
                "the places of the rules now was compared with what stood there"
            )
            return
        yield (
            f"{self.searched} personal values were searched for in all {self.read:,} bytes of the "
            "sanitised copy, and none was found"
        )


def require_fitting(settings: Settings, source: str) -> tuple[RuleSettings, ...] | None:
    """Return the rules of `source`; None where backup.yaml has none, () where it says so itself.

    Raises:
        ConfigurationError: A rule is about another kind of store than the source is.
    """
    rules = settings.sanitise.get(source)
    if rules is None:
        return None
    word = _WORDS.get(settings.sources[source].engine, "")
    for number, rule in enumerate(rules):
        if word and getattr(rule, word) is not None:
            continue
        engine = settings.sources[source].engine
        raise ConfigurationError(
            f"backup.sanitise.{source}[{number}]: {rule.place} is no place of {engine}",
            remedy=f"Its rules begin with `{word}`."
            if word
            else "It cannot be sanitised: remove the rule.",
            path=f"backup.sanitise.{source}[{number}]",
            value=rule.place,
        )
    return rules


def sanitise(
    endpoint: Endpoint, facts: Mapping[str, Any], rules: Sequence[RuleSettings]
) -> Outcome:
    """Do what `rules` say to the copy at `endpoint` whose dump has `facts`, and prove it.

    Raises:
        NotFoundError: A rule names what the copy does not have. Nothing was changed.
        PermanentError: A rule cannot be done (nothing was changed), or something personal is left.
    """
    begun = time.monotonic()
    with copies.opened(endpoint, facts) as copy:
        there = copy.check(rules)
        evidence = Evidence()
        # What is dropped as a whole is gone with its place.
        copy.capture(
            [one for one in there if one.column or one.path or one.action != "drop"], evidence
        )
        changes = tuple(copy.apply(there, Masker()))
    # A session of its own sees what anybody would see.
    with copies.opened(endpoint, facts) as copy:
        now = Evidence(most=_COMPARED)
        still = [rule for rule in there if rule.action in {"hash", "fake"}]
        copy.check(still)
        copy.capture(still, now)
        require_replaced(evidence, now)
        read = search(copy.pieces(), evidence.needles)
    return Outcome(
        changes=changes,
        absent=tuple(rule.place for rule in rules if rule not in there),
        searched=evidence.values,
        read=read,
        seconds=time.monotonic() - begun,
    )


def readable(endpoint: Endpoint, facts: Mapping[str, Any], *, empty: bool) -> int:
    """Read some records of every part of the copy; return how many there were.

    Raises:
        PermanentError: There is none, and the backup is not `empty`.
    """
    with copies.opened(endpoint, facts) as copy:
        found = sum(1 for _ in islice(copy.pieces(most=_SAMPLE), 100_000))
    if not found and not empty:
        raise PermanentError(
            "Not a single record can be read from the restored copy",
            remedy="Look at the log of the restore; the backup holds records.",
        )
    return found
