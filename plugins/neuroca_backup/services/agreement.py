"""Whether sources that were restored together agree: what one refers to is in the other.

Each restored copy equals its backup by then, so it is the fetched backups that are read, one after
the other, and no server. Of each side a sample is kept in the spool: the values with the smallest
hashes. Of both sides the same values are sampled so, whatever their sizes; a side with no more
values than are kept is compared whole.
"""

from __future__ import annotations

import hashlib
import heapq
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from neuroca_backup.engines import Engine, Referring
from neuroca_backup.errors import BackupError, ComparisonError, ConfigurationError
from neuroca_backup.model import document
from neuroca_backup.services.asking import Outcome
from neuroca_backup.spool import translated

if TYPE_CHECKING:
    from pathlib import Path

    from neuroca_backup.engines import Restorable
    from neuroca_backup.model.tickets import RestorePlan
    from neuroca_backup.settings import AgreementSettings, ReferenceSettings
    from neuroca_backup.spool import Spool

log = logging.getLogger(__name__)

EVERY, AMONG = "every", "among"
# Values kept of a side. Few are told of, so those that refer are kept as text.
_KEPT = {EVERY: 20_000, AMONG: 200_000}
_CHARACTERS = 64
_TOLD = 5


@dataclass
class Sample:
    """The `most` values with the smallest hashes of all that were added, each once.

    `texts` has, by hash, what is kept of a value. `limit` is the largest hash up to which the
    sample has every value, None where it has all there are.
    """

    most: int
    texts: dict[int, str] = field(default_factory=dict)
    limit: int | None = None
    _largest: list[int] = field(default_factory=list)

    def add(self, value: str, *, text: str = "") -> None:
        """Take a value."""
        digest = hashlib.blake2b(value.encode(errors="replace"), digest_size=7).digest()
        number = int.from_bytes(digest, "big")
        if number in self.texts or (self.limit is not None and number > self.limit):
            return
        self.texts[number] = text
        heapq.heappush(self._largest, -number)
        if len(self._largest) > self.most:
            del self.texts[-heapq.heappop(self._largest)]
            self.limit = -self._largest[0]


def sample_of(values: Iterable[str], *, side: str) -> Sample:
    """Return the sample of one side of an agreement."""
    found = Sample(_KEPT[side])
    for value in values:
        found.add(value, text=value[:_CHARACTERS] if side == EVERY else "")
    return found


class Agreement:
    """Holds the sources of one run to each other, by the rules of `agreement` in backup.yaml.

    `run` names what is restored together; its samples lie in the spool until `clear`.
    """

    def __init__(
        self,
        rules: Sequence[AgreementSettings],
        *,
        spool: Spool,
        engine: Callable[[str], Engine],
    ) -> None:
        self._rules = rules
        self._spool = spool
        self._engine = engine

    def note(self, run: str, plan: RestorePlan, backup: Restorable) -> None:
        """Keep what the rules ask of a restored source; what cannot be read `judge` will tell."""
        for rule in self._rules:
            for side in (EVERY, AMONG):
                reference: ReferenceSettings = getattr(rule, side)
                if reference.source == plan.source:
                    kept = self._kept(plan, backup, reference, side)
                    path = self._path(self._spool.shared(run), rule, side)
                    with translated(self._spool.root):
                        partial = path.with_suffix(".partial")
                        partial.write_bytes(document.encode(kept))
                        partial.replace(path)

    def judge(self, run: str) -> Outcome:
        """Return what the samples of `run` say of every rule."""
        home = self._spool.shared(run)
        notes: list[str] = []
        problems: list[str] = []
        if not self._rules:
            notes.append("Whether the tiers agree was not asked: backup.yaml has no `agreement`")
        for rule in self._rules:
            every, among = (_read(self._path(home, rule, side)) for side in (EVERY, AMONG))
            words, wrong = _judged(rule, every, among)
            (problems if wrong else notes).append(f"{rule.name}: {words}")
        return Outcome(tuple(notes), tuple(problems))

    def require(self, run: str) -> tuple[str, ...]:
        """Return the notes of `judge`.

        Raises:
            ComparisonError: There is a problem; every source is in its place nevertheless.
        """
        outcome = self.judge(run)
        if outcome.problems:
            raise ComparisonError(
                f"What was restored together does not agree: {'; '.join(outcome.problems)}",
                remedy="Each source is what its backup holds. Restore all of them from one backup "
                "set, or from an older one; if they are, the tiers did not agree when they were "
                "backed up.",
                problems=len(outcome.problems),
            )
        return outcome.notes

    def clear(self, run: str) -> None:
        """Remove the samples."""
        self._spool.clear(run)

    def _kept(
        self, plan: RestorePlan, backup: Restorable, reference: ReferenceSettings, side: str
    ) -> dict[str, Any]:
        if plan.only:
            return {"unasked": f"of {plan.source} only a part was restored"}
        try:
            engine = self._engine(plan.engine)
            if not isinstance(engine, Referring):
                raise ConfigurationError(
                    f"agreement: {plan.engine} backups, such as {plan.source}, cannot be asked",
                    remedy="Name a source of a memory tier.",
                    value=plan.source,
                )
            values = engine.values(backup, place=reference.place, field=reference.field)
            found = sample_of(values, side=side)
        except BackupError as error:
            log.error("%s could not be read for the agreement: %s", reference, error)  # noqa: TRY400 - told again by `judge`
            return {"problem": error.problem}
        return {
            "limit": found.limit,
            "hashes": sorted(found.texts),
            "texts": [found.texts[one] for one in sorted(found.texts)] if side == EVERY else [],
        }

    def _path(self, home: Path, rule: AgreementSettings, side: str) -> Path:
        name = hashlib.sha256(rule.name.encode()).hexdigest()[:16]
        return home / f"{name}-{side}.json"


def _read(path: Path) -> Mapping[str, Any]:
    if not path.exists():
        return {"unasked": ""}
    found: Mapping[str, Any] = document.decode(path.read_bytes(), name=str(path))
    return found


def _judged(
    rule: AgreementSettings, every: Mapping[str, Any], among: Mapping[str, Any]
) -> tuple[str, bool]:
    """Return what is to be told of a rule, and whether it is a problem."""
    for side, reference in ((every, rule.every), (among, rule.among)):
        if "problem" in side:
            return f"it could not be asked: {side['problem']}", True
        if "unasked" in side:
            why = side["unasked"] or f"{reference.source} was not restored with the other"
            return f"it was not asked: {why}", False
    if not every["hashes"]:
        return f"it was not asked: there is no {rule.every}", False
    limits = [one["limit"] for one in (every, among) if one["limit"] is not None]
    limit = min(limits, default=None)
    asked = {
        number: text
        for number, text in zip(every["hashes"], every["texts"], strict=True)
        if limit is None or number <= limit
    }
    if not asked:
        return f"it was not asked: {rule.among} are too many for a sample", False
    there = set(among["hashes"])
    missing = [text for number, text in asked.items() if number not in there]
    share = 100 * len(missing) / len(asked)
    sampled = "" if limit is None else " of a sample"
    if share <= rule.missing:
        return f"of {len(asked):,} values{sampled} {len(missing):,} are missing", False
    return (
        f"{len(missing):,} of {len(asked):,} values{sampled} of {rule.every} are not among "
        f"{rule.among}, for example {', '.join(missing[:_TOLD])}",
        True,
    )
