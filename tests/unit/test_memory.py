"""What the memory tiers share: words that select, digests, lines, and what has been seen."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuroca_backup.engines.working_memory.items import KINDS, KeyDigest, Piece
from neuroca_backup.errors import ConfigurationError, DamagedError, NotFoundError
from neuroca_backup.memory import jsonlines, selection
from neuroca_backup.memory.digests import Tally
from neuroca_backup.memory.journal import LOADED, LOADING, PUBLISHED, Journal, mark
from neuroca_backup.memory.seen import Seen
from neuroca_backup.memory.tiers import Fields, tier_of

FIELDS = Fields()


def _takes(item: dict[str, Any], *words: str, name: str = "x") -> bool:
    found = selection.parse(words, tier="working", places=())
    return found.takes(item, name=name, fields=FIELDS)


@pytest.mark.parametrize(
    ("item", "words", "taken"),
    [
        ({"session_id": "a"}, ["session=a"], True),
        ({"session_id": "a"}, ["session=b", "session=a"], True),
        ({"metadata": {"session_id": "a"}}, ["session=a"], True),
        ({"metadata": '{"session_id": "a"}'}, ["session=a"], True),
        ({"metadata": "{broken"}, ["session=a"], False),
        ({"user": 42}, ["user=42"], True),
        ({"user": 42.0}, ["user=42"], True),
        ({"user": "42"}, ["user=42", "session=a"], False),
        ({}, ["user=None"], False),
        ({"user_id": None, "user": "b"}, ["user=b"], True),
        ({"created_at": "2026-11-01T00:00:00"}, ["from=2026-11-01T00:00Z"], True),
        ({"created_at": "2026-11-01T00:00:00"}, ["to=2026-11-01T00:00Z"], False),
        ({"timestamp": 1793491200}, ["from=2026-11-01T00:00Z", "to=2026-11-02T00:00Z"], True),
        ({"timestamp": "1793491200000"}, ["from=2026-11-01T00:00Z"], True),
        ({"timestamp": True}, ["from=1970-01-01T00:00Z"], False),
        ({"timestamp": 1e300}, ["from=1970-01-01T00:00Z"], False),
        ({"created_at": "soon"}, ["from=1970-01-01T00:00Z"], False),
        ({}, ["from=1970-01-01T00:00Z"], False),
    ],
)
def test_an_item_is_taken_when_all_words_are_true_of_it(
    item: dict[str, Any], words: list[str], *, taken: bool
) -> None:
    assert _takes(item, *words) is taken


def test_fields_may_be_paths() -> None:
    fields = Fields(session=("owner.session",))
    found = selection.parse(["session=a"], tier="working", places=())
    assert found.takes({"owner": {"session": "a"}}, name="", fields=fields)
    assert not found.takes({"owner": "a"}, name="", fields=fields)


def test_a_span_that_ends_before_it_begins_is_refused() -> None:
    words = ["from=2026-11-02T00:00Z", "to=2026-11-01T00:00Z"]
    with pytest.raises(ConfigurationError, match="is not before"):
        selection.parse(words, tier="working", places=())


def test_without_words_everything_is_meant() -> None:
    assert selection.parse([], tier="working", places=()).whole
    assert selection.parse(["tier=STM"], tier="working", places=()).whole
    assert not selection.parse(["id=7"], tier="working", places=()).whole


@pytest.mark.parametrize("word", ["stm", "STM", "working"])
def test_a_tier_has_two_names(word: str) -> None:
    assert tier_of(word) == "working"


@given(st.binary())
def test_any_bytes_go_through_a_line(data: bytes) -> None:
    text = jsonlines.line({"v": jsonlines.packed(data)})
    ((number, record),) = jsonlines.records(io.BytesIO(text), name="m")
    assert (number, jsonlines.unpacked(record["v"])) == (1, data)


@pytest.mark.parametrize("value", [5, None, {"base64": "%"}, {"base64": 7}, {"other": "x"}, []])
def test_what_is_no_bytes_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="neither"):
        jsonlines.unpacked(value)


@pytest.mark.parametrize("data", [b'{"a":1}', b"[1]\n", b"{\n", b'{"a":1}\n\n', b"\xff\n"])
def test_lines_that_are_no_records_are_damage_with_the_members_name(data: bytes) -> None:
    with pytest.raises(DamagedError, match="member"):
        list(jsonlines.records(io.BytesIO(data), name="member"))


@given(st.lists(st.binary(max_size=9)), st.randoms(use_true_random=False))
def test_a_tally_is_the_same_in_any_order(things: list[bytes], chance: Any) -> None:
    one, other = Tally(), Tally()
    for thing in things:
        one.add(thing)
    chance.shuffle(things)
    for thing in things:
        other.add(thing)
    assert (one.count, one.digest) == (other.count, other.digest)


def test_a_tally_tells_parts_from_each_other() -> None:
    one, other = Tally(), Tally()
    one.add(b"ab", b"c")
    other.add(b"a", b"bc")
    assert one.digest != other.digest


def test_what_was_seen_is_known_after_it_has_gone_to_disk() -> None:
    with Seen() as seen:
        assert all(seen.add(b"%d" % n) for n in range(5000))
        assert not any(seen.add(b"%d" % n) for n in range(5000))
        assert seen.has(b"4999")
        assert not seen.has(b"49", b"99")


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_has_one_digest_in_however_many_pieces(kind: str) -> None:
    elements: list[Any] = [b"%d" % n for n in range(10)]
    if kind in {"hash", "zset"}:
        elements = [(one, one) for one in elements]
    if kind == "stream":
        elements = [(one, (b"a", one)) for one in elements]
    whole = Piece(b"k", kind, 5, elements=elements)
    digest = KeyDigest(whole)
    digest.add(whole)
    before, again = None, None
    for first in range(0, 10, 3):
        piece = Piece(
            b"k", kind, 5, elements=elements[first : first + 3], first=not first, more=first < 9
        )
        before = Piece.of(piece.record(), before)
        assert before == piece
        again = again or KeyDigest(before)
        again.add(before)
    assert again is not None
    assert again.parts() == digest.parts()


def test_the_journal_says_how_far_a_restore_came(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "work")
    assert not journal.staged
    for state in (LOADING, LOADED, PUBLISHED):
        journal.write(state, token="x")
        assert (journal.staged, journal.published) == (state == LOADED, state == PUBLISHED)
    journal.write(LOADING)
    with pytest.raises(NotFoundError, match="not been loaded to its end"):
        journal.require_loaded(backup_id="b")
    assert mark("b", ()) != mark("b", ("session=a",))
