"""Sanitising without a server: what replaces a value, what proves it, which rules are refused."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from bson import ObjectId
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from neuroca_backup.errors import ConfigurationError, PermanentError, TargetRefusedError
from neuroca_backup.model.identity import Component
from neuroca_backup.services import sanitise
from neuroca_backup.services.restore_tests import choosing
from neuroca_backup.services.restore_tests.choosing import Choice, Request
from neuroca_backup.services.sanitise.evidence import Evidence, require_replaced, search
from neuroca_backup.services.sanitise.masking import Masker, mask_at
from neuroca_backup.settings import RuleSettings, Settings


def rule(**words: Any) -> RuleSettings:
    return RuleSettings.model_validate({"collection": "a.b", "field": "x", **words})


HASH = rule(action="hash")


def test_equal_values_stay_equal_within_a_run_and_differ_between_runs() -> None:
    one, other = Masker(), Masker()

    assert one.replaced("zdenka", HASH) == one.replaced("zdenka", HASH)
    assert one.replaced("zdenka", HASH) != one.replaced("zdenko", HASH)
    assert one.replaced("zdenka", HASH) != other.replaced("zdenka", HASH)


def test_the_digest_is_the_hmac_that_the_pads_make() -> None:
    import hashlib  # noqa: PLC0415 - the other way of writing it down

    masker = Masker()
    inner, outer = masker.pads
    again = hashlib.sha256(outer + hashlib.sha256(inner + b"zdenka").digest()).digest()

    assert masker.digest("zdenka") == again


@given(st.text(min_size=1), st.sampled_from(["name", "email", "phone", "text"]))
def test_a_fake_tells_nothing_but_the_length_of_a_text(value: str, kind: str) -> None:
    made = Masker().fake(value, kind)

    assert made != value
    assert len(value) < 6 or value not in made
    if kind == "text":
        assert len(made) == max(len(value), 16)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("a", str),
        (17, int),
        (0.5, float),
        (b"x", bytes),
        (ObjectId(), ObjectId),
    ],
)
def test_a_hash_is_of_the_type_that_it_replaces(value: Any, kind: type) -> None:
    made = Masker().replaced(value, HASH)

    assert type(made) is kind
    assert made != value


def test_lists_and_documents_are_replaced_within() -> None:
    document = {"x": [{"deep": "zdenka"}, "zdenka", None, 4], "y": "stays"}

    assert mask_at(document, HASH, Masker()) == 1

    assert "zdenka" not in json.dumps(document)
    assert document["y"] == "stays"
    assert document["x"][2] is None


def test_a_path_leads_through_lists_and_drops_every_value() -> None:
    document = {"x": [{"y": 1, "z": 2}, {"y": 3}]}

    assert mask_at(document, rule(field="x.y", action="drop"), Masker()) == 2
    assert document == {"x": [{"z": 2}, {}]}


@pytest.mark.parametrize("value", [True, object()])
def test_what_cannot_be_hashed_is_refused_and_the_value_is_not_told(value: Any) -> None:
    with pytest.raises(PermanentError, match="to which 'hash' cannot be done") as said:
        Masker().replaced(value, HASH)
    assert repr(value) not in str(said.value)


@pytest.mark.parametrize(
    "content",
    [
        b"... Zde\xc5\x88ka O'Hara-\xc3\x85ngstr\xc3\xb6m ...",
        json.dumps({"by": "Zdeňka O'Hara-Ångström"}).encode(),
        b"a\tZde\xc5\x88ka O\\'Hara-\xc3\x85ngstr\xc3\xb6m\n",
    ],
)
def test_a_value_is_found_however_it_is_written_down(content: bytes) -> None:
    evidence = Evidence()
    evidence.add("memory.people name", "Zdeňka O'Hara-Ångström")

    with pytest.raises(PermanentError, match="What stood at memory") as said:
        search([b"nothing", content], evidence.needles)
    assert "Zde" not in str(said.value)
    assert "Zde" not in repr(evidence)


def test_what_is_too_short_to_be_told_apart_is_not_searched_for_but_compared_at_its_place() -> None:
    before, after = Evidence(), Evidence()
    before.add("place", ["ab", 42, "", None])

    assert before.needles == {}
    assert before.values == 0
    after.add("place", ["cd", 43])
    require_replaced(before, after)
    after.add("place", 42)
    with pytest.raises(PermanentError, match="Values at place are what they were"):
        require_replaced(before, after)


def test_evidence_is_bounded() -> None:
    evidence = Evidence()
    for number in range(1000):
        evidence.add("place", f"a value of its own {number}")

    assert not evidence.wants("place")
    assert len(evidence.needles) == 10


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ({"action": "drop"}, "names no place"),
        ({"table": "a.b", "keys": "x", "action": "drop"}, "names table and keys at once"),
        ({"table": "users", "column": "x", "action": "hash"}, "not a table with its schema"),
        ({"table": "a.b", "action": "hash"}, "is missing"),
        ({"collection": "a.b", "action": "hash"}, "is missing"),
        ({"collection": "a.b", "column": "x", "action": "drop"}, "is a word for a table"),
        ({"collection": "a.b", "database": "x", "action": "drop"}, "a word for tables and keys"),
        ({"collection": "a.b", "field": "x..y", "action": "hash"}, "has an empty part"),
        ({"keys": "x", "action": "fake"}, "goes with `action: fake` alone"),
        ({"keys": "x", "action": "hash", "kind": "name"}, "goes with `action: fake` alone"),
    ],
)
def test_a_rule_that_means_nothing_is_refused(words: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        RuleSettings.model_validate(words)


def test_null_without_quotes_is_the_action_that_it_looks_like() -> None:
    assert rule(action=None).action == "null"


def settings(**sections: Any) -> Settings:
    store = {"type": "local", "path": "/srv/a"}
    return Settings.model_validate(
        {
            "schedule": {},
            "storage": {"primary": store, "secondary": {**store, "path": "/srv/b"}},
            "retention": {},
            "encryption": {"key_management": "local", "local_key_file": "/srv/key"},
            **sections,
        }
    )


def test_a_rule_for_another_kind_of_store_is_refused_before_anything_is_touched() -> None:
    made = settings(sanitise={"redis": [{"table": "a.b", "column": "c", "action": "hash"}]})
    with pytest.raises(ConfigurationError, match=r"sanitise.redis\[0\]: a.b c is no place") as said:
        sanitise.require_fitting(made, "redis")
    assert "begin with `keys`" in str(said.value)

    made = settings(sanitise={"logs": [{"keys": "x", "action": "drop"}]})
    with pytest.raises(ConfigurationError, match="It cannot be sanitised"):
        sanitise.require_fitting(made, "logs")


RULE = [{"keys": "*", "action": "drop"}]


@pytest.mark.parametrize(
    ("source", "sections", "asked", "kept"),
    [
        ("redis", {}, {}, False),
        ("redis", {"sanitise": {"redis": RULE}}, {}, True),
        ("redis", {"sanitise": {"redis": []}}, {}, True),
        ("redis", {"sanitise": {"redis": RULE}}, {"sanitise": False}, False),
        ("configuration", {"sanitise": {"configuration": []}}, {}, False),
        ("unknown", {}, {}, False),
    ],
)
def test_a_copy_is_only_kept_where_nobody_can_see_too_much(
    source: str, sections: dict[str, Any], asked: dict[str, Any], *, kept: bool
) -> None:
    request = Request(keep=timedelta(hours=1), **asked)
    choices = [Choice(Component.DATABASE, source)]

    if kept:
        choosing.require_keepable(request, settings(**sections), choices)
    else:
        with pytest.raises(TargetRefusedError, match="its copy may not be kept"):
            choosing.require_keepable(request, settings(**sections), choices)
    # Nothing is kept: nothing is refused.
    choosing.require_keepable(Request(**asked), settings(**sections), choices)
