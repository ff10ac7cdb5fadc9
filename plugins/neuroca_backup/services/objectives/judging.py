"""Whether every source is inside its recovery point objective; pure: nothing here does I/O.

The age of a backup is the time since the moment whose state it brings back, not since its end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from statistics import median

from neuroca_backup.model.identity import Component
from neuroca_backup.model.quantity import size
from neuroca_backup.services.inventory import CLOCK_TOLERANCE
from neuroca_backup.services.objectives.findings import Finding, Kind, Level, hours, seconds_of
from neuroca_backup.settings import Settings

_BACK_UP = (
    "Run the DAG backup_{component}, or `neuroca-backup backup {source}`; look why the last run of "
    "it gave no verified backup."
)
_TOO_SELDOM = (
    " Where every run succeeds, schedule it more often: a backup counts once it is verified."
)
_CLOCK = "Set the clocks right, and take a new backup."
# A copy in one store alone is one loss away from none.
_COPIES = 2


@dataclass(frozen=True, slots=True)
class Rules:
    """The limits: `rpo` by component, `warn_at` and `most_drop` as fractions of one."""

    rpo: Mapping[Component, timedelta | None]
    warn_at: float = 0.8
    most_drop: float = 0.5
    compared_with: int = 7

    @classmethod
    def of(cls, settings: Settings) -> Rules:
        """Return the rules that backup.yaml sets."""
        monitor = settings.monitor
        return cls(
            rpo={component: settings.objectives.rpo.of(component) for component in Component},
            warn_at=monitor.warn_at / 100,
            most_drop=monitor.most_drop / 100,
            compared_with=monitor.compared_with,
        )


@dataclass(frozen=True, slots=True)
class Proof:
    """The newest backup that was read back and found sound, with all that its restore needs.

    `current_at` (aware) is the latest moment whose state it brings back, `stores` have a sound
    copy of it, `plain_size` is what a restore of it reads, in bytes. `unchanged` says that the
    source was since seen to be what it holds.
    """

    backup_id: str
    current_at: datetime
    stores: frozenset[str]
    plain_size: int
    unchanged: bool = False


@dataclass(frozen=True, slots=True)
class Measured:
    """How much one full backup holds: bytes, and a count by noun (rows, documents, keys, ...)."""

    backup_id: str
    size: int
    content: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """What is known of one source.

    `proof` is None where there is no verified backup; `seen` is how many backups of it were
    looked at, `trouble` why any of them does not count. `fulls` are its verified full backups,
    the newest first. `vanished` are backups that the catalog calls verified and no store has;
    `uncatalogued` says that the catalog answers and does not know the proof.
    """

    component: Component
    source: str
    proof: Proof | None
    seen: int = 0
    trouble: tuple[str, ...] = ()
    fulls: tuple[Measured, ...] = ()
    vanished: tuple[str, ...] = ()
    uncatalogued: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of everything that is judged.

    `silent` are the stores that did not answer, each with the reason; `stores` how many there
    are. `catalog_problem` is why the catalog did not answer, "" where it did or there is none.
    """

    sources: tuple[SourceFacts, ...]
    stores: int
    silent: Mapping[str, str] = field(default_factory=dict)
    catalog_problem: str = ""


def judge(now: datetime, facts: Facts, rules: Rules) -> tuple[Finding, ...]:
    """Return what is to be said of every source and component at `now` (aware).

    Of each source and each component there is exactly one finding of the kind `rpo`, whatever its
    level. A source of which nothing is known, a store and a catalog that did not answer are
    breaches. Where there is nothing to judge, that is one, too.
    """
    found: list[Finding] = [*_infrastructure(facts)]
    by_component: dict[Component, list[Finding]] = {}
    for source in facts.sources:
        age = _age(now, source, rules)
        by_component.setdefault(source.component, []).append(age)
        found += [age, *_copies(source, facts), *_catalog(source), *_content(source, rules)]
    found += [_summary(one, ages, rules) for one, ages in by_component.items()]
    if not facts.sources:
        found.append(
            Finding(
                kind=Kind.RPO,
                level=Level.BREACH,
                component="",
                subject="",
                problem="No source was looked at, so nothing is known to be backed up",
                remedy="Name the sources in backup.yaml.",
            )
        )
    return tuple(found)


def _age(now: datetime, source: SourceFacts, rules: Rules) -> Finding:
    limit = rules.rpo.get(source.component)
    proof = source.proof
    level, age, problem, remedy = Level.OK, None, "", ""
    advice = _BACK_UP.format(component=source.component, source=source.source)
    why = f": {'; '.join(source.trouble)}" if source.trouble else ""
    if proof is None:
        # Without an objective there is no limit to break; but a source without a backup is not OK.
        level = Level.WARNING if limit is None else Level.BREACH
        problem = (
            f"there is no verified backup, and none of its {source.seen} backups counts{why}"
            if source.seen
            else f"there is no backup at all{why}"
        )
        remedy = advice
    else:
        passed = now - proof.current_at
        age = passed.total_seconds()
        what = "was last seen unchanged" if proof.unchanged else "has its last verified backup from"
        problem = f"{what} {hours(age)} ago ({proof.backup_id})"
        if passed < -CLOCK_TOLERANCE:
            level = Level.BREACH
            problem = f"{proof.backup_id} is from the future, so its age is not known"
            remedy = _CLOCK
        elif limit is None:
            problem += ", and has no RPO"
        else:
            problem += f"; its RPO is {hours(limit.total_seconds())}"
            if passed > limit:
                level, remedy = Level.BREACH, advice + _TOO_SELDOM
            elif passed >= limit * rules.warn_at:
                level = Level.WARNING
                remedy = f"In {hours((limit - passed).total_seconds())} it is broken. {advice}"
        if level is not Level.OK:
            problem += why
    return Finding(
        kind=Kind.RPO,
        level=level,
        component=source.component.value,
        subject=source.source,
        problem=problem,
        remedy=remedy,
        age=age,
        limit=seconds_of(limit),
        backup_id=proof.backup_id if proof else "",
    )


def _summary(component: Component, ages: Sequence[Finding], rules: Rules) -> Finding:
    """Return what holds of a component: what holds of its worst source, the oldest of those."""
    last = max(ages, key=lambda one: (one.level, one.age is None, one.age or 0.0))
    return Finding(
        kind=Kind.RPO,
        level=last.level,
        component=component.value,
        subject="",
        problem=f"{last.subject} decides: it {last.problem}"
        if last.age is not None
        else f"{last.subject} decides: {last.problem}",
        remedy=last.remedy,
        age=last.age,
        limit=seconds_of(rules.rpo.get(component)),
        backup_id=last.backup_id,
    )


def _infrastructure(facts: Facts) -> Iterator[Finding]:
    for store, why in facts.silent.items():
        yield Finding(
            kind=Kind.STORE,
            level=Level.BREACH,
            component="",
            subject=store,
            problem=f"the store does not answer, so what it holds is not known ({why})",
            remedy="Mend the network, the credentials or the bucket.",
        )
    if facts.catalog_problem:
        yield Finding(
            kind=Kind.CATALOG,
            level=Level.BREACH,
            component="",
            subject="catalog",
            problem="the catalog does not answer; the figures are from the stores' manifests, and "
            f"there is no history ({facts.catalog_problem})",
            remedy="Mend its database; `neuroca-backup catalog rebuild` makes it again.",
        )


def _copies(source: SourceFacts, facts: Facts) -> Iterator[Finding]:
    proof = source.proof
    if proof is not None and len(proof.stores) < min(_COPIES, facts.stores):
        where = f"in {', '.join(proof.stores)} alone" if proof.stores else "whole in no store"
        yield Finding(
            kind=Kind.COPIES,
            level=Level.WARNING,
            component=source.component.value,
            subject=source.source,
            problem=f"{proof.backup_id} is verified {where}",
            remedy=f"Run `neuroca-backup verify {proof.backup_id}`; it says what the other copy "
            "lacks.",
            backup_id=proof.backup_id,
        )


def _catalog(source: SourceFacts) -> Iterator[Finding]:
    if source.vanished:
        yield Finding(
            kind=Kind.CATALOG,
            level=Level.BREACH,
            component=source.component.value,
            subject=source.source,
            problem=f"the catalog knows {', '.join(source.vanished)} as verified, and no store has "
            "it",
            remedy="Find out who deleted it. If that was meant, `neuroca-backup catalog rebuild` "
            "brings the catalog in line.",
            backup_id=source.vanished[0],
        )
    elif source.uncatalogued and source.proof is not None:
        yield Finding(
            kind=Kind.CATALOG,
            level=Level.WARNING,
            component=source.component.value,
            subject=source.source,
            problem=f"the catalog does not know {source.proof.backup_id} as verified; the figures "
            "are from the stores' manifests",
            remedy="Run `neuroca-backup catalog rebuild`.",
            backup_id=source.proof.backup_id,
        )


def _content(source: SourceFacts, rules: Rules) -> Iterator[Finding]:
    """Yield a breach where the newest full backup has lost much of what those before it had."""
    newest, earlier = source.fulls[:1], source.fulls[1 : rules.compared_with + 1]
    if not newest or not earlier:
        return
    lost = [
        f"{_amount(noun, count)} where the middle one of {len(earlier)} before it has "
        f"{_amount(noun, usual)}"
        for noun, count, usual in _compared(newest[0], earlier)
        if count < usual * (1 - rules.most_drop)
    ]
    if lost:
        yield Finding(
            kind=Kind.CONTENT,
            level=Level.BREACH,
            component=source.component.value,
            subject=source.source,
            problem=f"{newest[0].backup_id} is suspicious: it has {'; '.join(lost)}",
            remedy="Look whether the source has lost data. If so, put a hold on "
            f"{earlier[0].backup_id}, so that it does not expire. If not, this ends once most of "
            "the backups that are compared have the new size; monitor.most_drop is the limit.",
            backup_id=newest[0].backup_id,
        )


def _compared(newest: Measured, earlier: Sequence[Measured]) -> Iterator[tuple[str, float, float]]:
    """Yield each noun with its count in the newest backup, and the usual one."""
    yield "bytes", newest.size, median(one.size for one in earlier)
    for noun in sorted({noun for one in earlier for noun in one.content}):
        counted = [one.content[noun] for one in earlier if noun in one.content]
        # A noun that the newest does not have at all has nothing of it.
        yield noun, newest.content.get(noun, 0), median(counted)


def _amount(noun: str, count: float) -> str:
    return size(round(count)) if noun == "bytes" else f"{count:,.0f} {noun}"
