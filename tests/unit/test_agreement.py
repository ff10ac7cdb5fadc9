"""Sources that were restored together: what one refers to has to be in the other."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuroca_backup.errors import ComparisonError, ConfigurationError
from neuroca_backup.memory.references import values_of
from neuroca_backup.services import agreement
from neuroca_backup.services.agreement import AMONG, EVERY, Agreement, Sample, sample_of
from neuroca_backup.settings import AgreementSettings
from neuroca_backup.spool import Spool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RULE = AgreementSettings.model_validate(
    {
        "name": "rule",
        "every": {"source": "semantic", "place": "vectors", "field": "episode"},
        "among": {"source": "episodic", "place": "episodes", "field": "id"},
    }
)


class Values:
    """An engine whose backups hold what they are given."""

    def values(self, backup: Any, *, place: str, field: str) -> Iterator[str]:
        assert field in {RULE.every.field, RULE.among.field}
        if place not in backup:
            raise ConfigurationError(f"no {place}", remedy="Name another one.")
        return iter(backup[place])


class Plan:
    """As much of a plan as is asked for."""

    def __init__(self, source: str, *only: str) -> None:
        self.source, self.only, self.engine = source, only, "values"


def judged(
    spool: Spool, every: list[str] | None, among: list[str] | None, **rule: Any
) -> agreement.Outcome:
    made: Any = Agreement(
        [RULE.model_copy(update=rule)],
        spool=spool,
        engine=lambda _: Values(),  # type: ignore[arg-type, return-value]
    )
    if every is not None:
        made.note("run", Plan("semantic"), {"vectors": every})
    if among is not None:
        made.note("run", Plan("episodic"), {"episodes": among})
    try:
        outcome: agreement.Outcome = made.judge("run")
    finally:
        made.clear("run")
    return outcome


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


def test_what_is_missing_is_counted_and_named_and_a_share_of_it_is_let_pass(spool: Spool) -> None:
    ids = [f"e{n}" for n in range(200)]
    found = judged(spool, [*ids, *ids, "lost"], ids)
    assert found.problems == ()
    assert found.notes == ("rule: of 201 values 1 are missing",)
    found = judged(spool, [*ids, "lost", "gone", "away"], ids)
    assert found.notes == ()
    (problem,) = found.problems
    assert problem.startswith("rule: 3 of 203 values of episode of semantic vectors are not among")
    assert {"lost", "gone", "away"} <= set(problem.replace(",", "").split())
    assert judged(spool, [*ids, "lost"], ids, missing=0.0).problems


@pytest.mark.parametrize(
    ("every", "among", "words"),
    [
        (["a"], None, "it was not asked: episodic was not restored with the other"),
        (None, ["a"], "it was not asked: semantic was not restored with the other"),
        ([], ["a"], "it was not asked: there is no episode of semantic vectors"),
    ],
)
def test_what_was_not_asked_is_said(
    spool: Spool, every: list[str] | None, among: list[str] | None, words: str
) -> None:
    found = judged(spool, every, among)
    assert (found.problems, found.notes) == ((), (f"rule: {words}",))


def test_nothing_to_find_anything_among_is_no_agreement(spool: Spool) -> None:
    assert judged(spool, ["a"], []).problems


def test_a_part_is_not_asked_and_what_cannot_be_read_is_a_problem(spool: Spool) -> None:
    made: Any = Agreement([RULE], spool=spool, engine=lambda _: Values())  # type: ignore[arg-type, return-value]
    made.note("run", Plan("semantic", "id=7"), {"vectors": ["a"]})
    made.note("run", Plan("episodic"), {"episodes": ["b"]})
    assert made.judge("run").notes == (
        "rule: it was not asked: of semantic only a part was restored",
    )
    made.note("run", Plan("semantic"), {"other": ["a"]})
    with pytest.raises(ComparisonError, match="it could not be asked: no vectors"):
        made.require("run")


def test_an_engine_that_cannot_be_asked_is_a_problem(spool: Spool) -> None:
    made: Any = Agreement([RULE], spool=spool, engine=lambda _: object())  # type: ignore[arg-type, return-value]
    made.note("run", Plan("semantic"), {})
    made.note("run", Plan("episodic"), {})
    with pytest.raises(ComparisonError, match="values backups, such as semantic, cannot be asked"):
        made.require("run")


def test_without_any_rule_it_is_said_that_nothing_was_asked(spool: Spool) -> None:
    made = Agreement([], spool=spool, engine=lambda _: Values())  # type: ignore[arg-type, return-value]
    assert "has no `agreement`" in made.judge("run").notes[0]


@given(st.lists(st.text(max_size=8)), st.integers(min_value=1, max_value=20))
def test_a_sample_has_every_value_up_to_its_limit(values: list[str], most: int) -> None:
    small, whole = Sample(most), Sample(10_000)
    for value in values:
        small.add(value)
        whole.add(value)
    limit = small.limit
    expected = {one for one in whole.texts if limit is None or one <= limit}
    assert set(small.texts) == expected
    assert len(small.texts) == min(most, len(set(values)))


def test_samples_of_large_sides_find_what_is_missing(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agreement, "_KEPT", {EVERY: 500, AMONG: 2000})
    chance = random.Random(7)  # noqa: S311 - the same every time
    among = [f"e{n}" for n in range(20_000)]
    every = [chance.choice(among) for _ in range(5000)]
    assert judged(spool, every, among).problems == ()
    lost = [f"lost{n}" for n in range(500)]
    (problem,) = judged(spool, [*every, *lost], among).problems
    assert "of a sample" in problem
    assert len(sample_of(every, side=EVERY).texts) == 500


@pytest.mark.parametrize(
    ("item", "field", "found"),
    [
        ({"a": 1}, "a", ["1"]),
        ({"a": 1.0}, "a", ["1"]),
        ({"a": {"b": ["x", "y"]}}, "a.b", ["x", "y"]),
        ({"a": [{"b": "x"}, {"c": 1}, {"b": ["y"]}]}, "a.b", ["x", "y"]),
        ({"metadata": '{"episode_id": "e"}'}, "metadata.episode_id", ["e"]),
        ({"metadata": "{broken"}, "metadata.episode_id", []),
        ({"a": None}, "a", []),
        ({"a": ""}, "a", []),
        ({"a": {"b": 1}}, "a", []),
        ({}, "a.b", []),
    ],
)
def test_the_values_of_a_path(item: dict[str, Any], field: str, found: list[str]) -> None:
    assert list(values_of(item, field)) == found
