"""Whether the recovery points are judged right: nothing unknown is OK, and the moment is right."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuroca_backup.model.identity import Component
from neuroca_backup.services.objectives.counting import content
from neuroca_backup.services.objectives.findings import Finding, Kind, Level, hours, worst
from neuroca_backup.services.objectives.judging import (
    Facts,
    Measured,
    Proof,
    Rules,
    SourceFacts,
    judge,
)

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
RULES = Rules(rpo={Component.DATABASE: 24 * HOUR, Component.CONFIGURATION: 168 * HOUR})
BOTH = frozenset({"primary", "secondary"})


def proof(age: timedelta, **changes: Any) -> Proof:
    made = Proof("20261123T020000Z-1f0c9a3e-postgres", NOW - age, BOTH, 1000)
    return replace(made, **changes)


def source(age: timedelta | None = HOUR, **changes: Any) -> SourceFacts:
    made = SourceFacts(Component.DATABASE, "postgres", None if age is None else proof(age), seen=3)
    return replace(made, **changes)


def facts(*sources: SourceFacts, **changes: Any) -> Facts:
    return replace(Facts(sources=sources, stores=2), **changes)


def of(found: tuple[Finding, ...], kind: Kind, subject: str = "postgres") -> Finding:
    (one,) = (one for one in found if one.kind is kind and one.subject == subject)
    return one


@pytest.mark.parametrize(
    ("age", "level"),
    [
        (timedelta(), Level.OK),
        (timedelta(hours=19, minutes=11), Level.OK),
        (timedelta(hours=19, minutes=12), Level.WARNING),
        (24 * HOUR, Level.WARNING),
        (24 * HOUR + timedelta(microseconds=1), Level.BREACH),
        (1000 * HOUR, Level.BREACH),
        (-timedelta(minutes=10), Level.OK),
        (-timedelta(minutes=11), Level.BREACH),
    ],
)
def test_the_age_decides_to_the_moment(age: timedelta, level: Level) -> None:
    assert of(judge(NOW, facts(source(age)), RULES), Kind.RPO).level is level


def test_a_breach_says_what_how_old_against_which_limit_and_what_to_do() -> None:
    found = of(judge(NOW, facts(source(timedelta(hours=25, minutes=3))), RULES), Kind.RPO)

    assert found.component == "database"
    assert (found.age, found.limit) == (25 * 3600 + 180, 24 * 3600)
    assert found.sentence.startswith(
        "database/postgres: has its last verified backup from 25 h 3 min ago "
        "(20261123T020000Z-1f0c9a3e-postgres); its RPO is 24 h. Run the DAG backup_database"
    )


def test_a_component_is_as_old_as_its_oldest_source_and_names_it() -> None:
    found = judge(
        NOW,
        facts(source(HOUR), source(30 * HOUR, source="redis"), source(29 * HOUR, source="vector")),
        RULES,
    )

    whole = of(found, Kind.RPO, "")
    assert (whole.level, whole.age) == (Level.BREACH, 30 * 3600)
    assert whole.problem.startswith("redis decides: it has its last verified backup from 30 h ago")
    assert of(found, Kind.RPO).level is Level.OK


def test_a_component_with_one_source_without_a_backup_is_a_breach_whatever_the_others() -> None:
    found = judge(NOW, facts(source(HOUR), source(None, source="redis", seen=0)), RULES)

    assert of(found, Kind.RPO, "").level is Level.BREACH
    assert of(found, Kind.RPO, "").problem == "redis decides: there is no backup at all"


def test_a_source_that_has_not_changed_counts_by_when_that_was_last_seen() -> None:
    found = of(judge(NOW, facts(source(proof=proof(HOUR, unchanged=True))), RULES), Kind.RPO)

    assert found.level is Level.OK
    assert found.problem.startswith("was last seen unchanged 1 h ago")


def test_without_an_rpo_age_is_no_breach_but_no_backup_is_not_ok() -> None:
    old, none = source(9000 * HOUR), source(None, seen=0)
    rules = Rules(rpo={})

    assert of(judge(NOW, facts(old), rules), Kind.RPO).level is Level.OK
    assert of(judge(NOW, facts(none), rules), Kind.RPO).level is Level.WARNING


def test_a_silent_store_and_a_silent_catalog_are_named_and_breaches() -> None:
    found = judge(
        NOW, facts(source(), silent={"secondary": "no route"}, catalog_problem="refused"), RULES
    )

    store, catalog = of(found, Kind.STORE, "secondary"), of(found, Kind.CATALOG, "catalog")
    assert (store.level, catalog.level) == (Level.BREACH, Level.BREACH)
    assert "no route" in store.problem
    assert "the figures are from the stores' manifests" in catalog.problem
    assert of(found, Kind.RPO).level is Level.OK, "the other store has told"


def test_a_backup_in_one_store_alone_is_said_to_be() -> None:
    one = source(proof=proof(HOUR, stores=frozenset({"secondary"})))

    found = of(judge(NOW, facts(one), RULES), Kind.COPIES)

    assert found.level is Level.WARNING
    assert "is verified in secondary alone" in found.problem
    assert not any(f.kind is Kind.COPIES for f in judge(NOW, facts(one, stores=1), RULES))


def test_what_the_catalog_has_and_no_store_is_a_breach_and_the_other_way_a_warning() -> None:
    gone = judge(NOW, facts(source(vanished=("x",))), RULES)
    unknown = judge(NOW, facts(source(uncatalogued=True)), RULES)

    assert of(gone, Kind.CATALOG).level is Level.BREACH
    assert of(unknown, Kind.CATALOG).level is Level.WARNING


def fulls(*sizes: int, rows: tuple[int, ...] = ()) -> SourceFacts:
    """Return a source whose full backups, the newest first, have these sizes and rows."""
    counts = rows or (100,) * len(sizes)
    return source(
        fulls=tuple(
            Measured(f"b{number}", size, {"rows": count})
            for number, (size, count) in enumerate(zip(sizes, counts, strict=True))
        )
    )


@pytest.mark.parametrize(
    ("one", "suspicious"),
    [
        (fulls(1000), ""),
        (fulls(500, 1000, 1000), ""),
        (fulls(499, 1000, 1000), "499 B where the middle one of 2 before it has 1.0 kB"),
        (fulls(1000, 1000, 9000, 1000), ""),
        (fulls(1000, 1000, rows=(49, 100)), "49 rows where the middle one of 1 before it has 100"),
        (fulls(10_000, 1000), ""),
        (fulls(0, 0, 0), ""),
        # Of nine before it only seven are compared: the two of another time do not count.
        (fulls(1000, *[1000] * 7, 9000, 9000), ""),
    ],
)
def test_a_backup_that_lost_more_than_half_is_suspicious(one: SourceFacts, suspicious: str) -> None:
    found = [f for f in judge(NOW, facts(one), RULES) if f.kind is Kind.CONTENT]

    assert [f.level for f in found] == [Level.BREACH] * bool(suspicious)
    assert suspicious in "".join(f.problem for f in found)


def test_a_noun_that_is_gone_altogether_counts_as_none_of_it() -> None:
    one = source(fulls=(Measured("new", 1000), Measured("old", 1000, {"vectors": 5})))

    assert "it has 0 vectors where" in of(judge(NOW, facts(one), RULES), Kind.CONTENT).problem


def test_nothing_to_judge_is_a_breach() -> None:
    assert worst(judge(NOW, facts(), RULES)) is Level.BREACH
    assert worst([]) is Level.BREACH


moments = st.timedeltas(min_value=-timedelta(days=400), max_value=timedelta(days=400))
proofs = st.none() | st.builds(
    Proof,
    backup_id=st.just("id"),
    current_at=moments.map(lambda ago: NOW - ago),
    stores=st.sets(st.sampled_from(sorted(BOTH))).map(frozenset),
    plain_size=st.integers(0, 10**12),
    unchanged=st.booleans(),
)
measured = st.builds(
    Measured,
    backup_id=st.just("full"),
    size=st.integers(0, 10**12),
    content=st.dictionaries(st.sampled_from(["rows", "keys"]), st.integers(0, 10**9)),
)
sources = st.builds(
    SourceFacts,
    component=st.sampled_from(Component),
    source=st.sampled_from(["a", "b", "c"]),
    proof=proofs,
    seen=st.integers(0, 5),
    trouble=st.lists(st.just("is damaged"), max_size=2).map(tuple),
    fulls=st.lists(measured, max_size=9).map(tuple),
    vanished=st.lists(st.just("gone"), max_size=1).map(tuple),
    uncatalogued=st.booleans(),
)
everything = st.builds(
    Facts,
    sources=st.lists(sources, max_size=4, unique_by=lambda s: (s.component, s.source)).map(tuple),
    stores=st.integers(1, 3),
    silent=st.dictionaries(st.sampled_from(sorted(BOTH)), st.just("silent"), max_size=2),
    catalog_problem=st.sampled_from(["", "down"]),
)
rules = st.builds(
    Rules,
    rpo=st.dictionaries(
        st.sampled_from(Component), st.timedeltas(timedelta(minutes=1), timedelta(days=30))
    ),
    warn_at=st.floats(0.01, 1),
    most_drop=st.floats(0.01, 0.99),
    compared_with=st.integers(1, 8),
)


@given(known=everything, rule=rules)
def test_whatever_is_known_nothing_unknown_is_ok_and_everything_is_said(
    known: Facts, rule: Rules
) -> None:
    found = judge(NOW, known, rule)

    assert len({one.key for one in found}) == len(found), "no finding may hide another"
    for one in known.sources:
        (age,) = (
            f
            for f in found
            if f.kind is Kind.RPO and (f.component, f.subject) == (one.component, one.source)
        )
        limit = rule.rpo.get(one.component)
        if one.proof is None:
            assert age.level is (Level.WARNING if limit is None else Level.BREACH)
        elif age.level is Level.OK:
            passed = NOW - one.proof.current_at
            assert passed >= -timedelta(minutes=10)
            assert limit is None or passed < limit
        whole = of(tuple(f for f in found if f.component == one.component), Kind.RPO, "")
        assert whole.level >= age.level
    for store in known.silent:
        assert of(found, Kind.STORE, store).level is Level.BREACH
    unknown = known.silent or known.catalog_problem or not known.sources
    assert not unknown or worst(found) is Level.BREACH
    for one_ in found:
        assert one_.level is Level.OK or one_.remedy, "every problem has a remedy"
        assert Finding.from_json(one_.to_json()) == one_


@pytest.mark.parametrize(
    ("known", "counted"),
    [
        ({"databases": {"a": {"tables": {"t": {"rows": 3}, "u": {"rows": 4}}}}}, {"rows": 7}),
        ({"tables": {"dag.jsonl": {"rows": 2}}}, {"rows": 2}),
        ({"collections": {"n.c": {"documents": 5}, "n.v": {"documents": None}}}, {"documents": 5}),
        ({"collections": {"mem": {"count": 9}}}, {"vectors": 9}),
        ({"databases": {"0": {"keys": 8, "expiring": 1}}, "keys": ["stm:*"]}, {"keys": 8}),
        ({"files": 6, "directories": 2}, {"files": 6}),
        ({"categories": {"application": {"files": 1}}, "ended": {"files": 9}}, {"files": 1}),
        ({"databases": "all", "collections": ["x"]}, {}),
        ({}, {}),
    ],
)
def test_the_counts_of_every_engine_are_found_in_its_facts(
    known: dict[str, Any], counted: dict[str, int]
) -> None:
    assert content(known) == counted


def test_time_is_never_rounded_over_a_limit() -> None:
    words = [hours(s) for s in (0, 59, 60, 3600, 86_399, 86_400, 86_460, 7 * 86_400, 266_399)]
    assert words == [
        *("0 min", "0 min", "1 min", "1 h", "23 h 59 min", "24 h", "24 h 1 min"),
        *("7 d", "3 d 1 h"),
    ]
