"""The audit trail: whatever is done to it shows, and nothing that happens to it fails the work."""

from __future__ import annotations

import json
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from neuroca_backup.catalog.memory import MemoryCatalog
from neuroca_backup.errors import (
    AccessDeniedError,
    ConfigurationError,
    DamagedError,
    StoreUnavailableError,
    UnreachableError,
)
from neuroca_backup.model import document
from neuroca_backup.model.audit import BLOCK, Line, details_of, key_of
from neuroca_backup.services.audit import Audit, newest, operating_user, read_head
from neuroca_backup.services.audit_check import AuditReport, check, export
from support.memory_store import Death, Killed, MemoryStore

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
BOTH = ("primary", "secondary")


class Trail:
    """Two stores, a catalog, a clock of one second an event, and any number of writers."""

    def __init__(self, *, lines: int = 0) -> None:
        self.now = NOW
        self.stores = {name: MemoryStore(name, lambda: self.now) for name in BOTH}
        self.catalog = MemoryCatalog()
        self.audit = self.writer()
        for number in range(1, lines + 1):
            self.audit.note("backup", f"b{number}")

    def writer(self, actor: str = "ann@host") -> Audit:
        return Audit(stores=self.stores, catalog=self.catalog, actor=actor, clock=self._tick)

    def _tick(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now

    def check(self, **more: Any) -> AuditReport:
        now = self.now + timedelta(hours=1)
        return check(self.stores, self.catalog, now=now, **more)

    def problems(self, **more: Any) -> list[str]:
        return [str(one) for one in self.check(**more).findings]

    def subjects(self, store: str = "primary") -> list[str]:
        return [line.event.subject for line in newest(self.stores[store])][::-1]

    def raw(self, sequence: int, store: str = "primary") -> bytes:
        return self.stores[store].objects[key_of(sequence)][0]

    def put(self, sequence: int, data: bytes, store: str = "primary") -> None:
        self.stores[store].objects[key_of(sequence)] = (data, self.now)

    def remove(self, *sequences: int, store: str = "primary") -> None:
        for one in sequences:
            del self.stores[store].objects[key_of(one)]

    def forge(self, sequence: int, store: str = "primary", **event: Any) -> None:
        """Rewrite a line as somebody would who knows the format."""
        body = json.loads(self.raw(sequence, store))["body"]
        body["event"] |= event
        self.put(sequence, document.encode(body), store)


def test_every_store_has_every_event_and_the_whole_is_sound() -> None:
    trail = Trail(lines=5)
    assert (
        trail.subjects("primary") == trail.subjects("secondary") == ["b1", "b2", "b3", "b4", "b5"]
    )
    report = trail.check()
    assert report.sound
    assert {name: head.sequence for name, head in report.heads.items()} == dict.fromkeys(BOTH, 5)
    line = next(newest(trail.stores["primary"]))
    assert (line.event.actor, line.event.action, line.event.result) == (
        "ann@host",
        "backup",
        "done",
    )


def test_a_trail_that_is_not_there_is_not_called_sound() -> None:
    assert not Trail().check().sound


def test_many_writers_at_once_make_one_chain_without_a_gap() -> None:
    trail = Trail()
    writers = [trail.writer(f"w{number}") for number in range(8)]

    def write(writer: Audit) -> None:
        for number in range(12):
            writer.note("verify", f"{writer.actor}-{number}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, writers))
    for name in BOTH:
        assert len(set(trail.subjects(name))) == 96
    assert trail.check().sound


def test_a_chain_of_several_folders_is_one_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuroca_backup.model.audit.BLOCK", 4)
    trail = Trail(lines=11)
    trail.writer().note("backup", "b12")
    assert len(list(trail.stores["primary"].folders("audit"))) == 4
    assert read_head(trail.stores["primary"]).sequence == 12
    assert trail.check().sound
    assert BLOCK == 1000


@pytest.mark.parametrize("sequence", [1, 3, 5])
def test_a_flipped_bit_is_named(sequence: int) -> None:
    trail = Trail(lines=5)
    data = bytearray(trail.raw(sequence))
    data[40] ^= 1
    trail.put(sequence, bytes(data))
    assert [one for one in trail.problems() if "edited or damaged" in one] == [
        f"primary:{key_of(sequence)}: was edited or damaged: its bytes are not what was written"
    ]


@pytest.mark.parametrize("sequence", [1, 3])
def test_an_edited_line_with_a_digest_of_its_own_is_named(sequence: int) -> None:
    trail = Trail(lines=5)
    trail.forge(sequence, actor="mallory")
    found = trail.problems()
    assert any(
        f"primary:{key_of(sequence + 1)}: does not continue {key_of(sequence)}" in one
        for one in found
    )
    assert any(f"{key_of(sequence)}" in one and "was replaced" in one for one in found)
    assert any("tells its event otherwise" in one for one in found)


def test_an_edited_last_line_shows_by_the_other_store_and_the_catalog() -> None:
    trail = Trail(lines=3)
    trail.forge(3, store="secondary", result="failed")
    assert any(
        f"secondary:{key_of(3)}: was replaced: the catalog" in one for one in trail.problems()
    )


def test_a_missing_line_is_named() -> None:
    trail = Trail(lines=5)
    trail.remove(2)
    assert f"primary:{key_of(2)}: is missing" in trail.problems()


def test_a_trail_cut_short_is_named_although_its_chain_is_without_a_flaw() -> None:
    trail = Trail(lines=5)
    trail.remove(4, 5)
    found = trail.problems()
    assert len(found) == 2
    assert f"primary:{key_of(4)}: is gone, so the trail was cut short" in found[0]


def test_a_trail_cut_short_and_written_on_is_named() -> None:
    trail = Trail(lines=5)
    trail.remove(4, 5)
    trail.writer().note("backup", "b6")
    trail.writer().note("backup", "b7")
    assert any(f"primary:{key_of(4)}: was replaced" in one for one in trail.problems())


def test_the_last_line_of_every_store_removed_shows_by_the_catalog() -> None:
    trail = Trail(lines=3)
    for name in BOTH:
        trail.remove(3, store=name)
    assert any("the catalog's event" in one for one in trail.problems())


def test_a_whole_chain_removed_is_named_until_it_is_said_to_be_retired() -> None:
    trail = Trail(lines=3)
    chain = read_head(trail.stores["primary"]).chain
    trail.remove(1, 2, 3)
    assert any(f"the chain {chain} is gone" in one for one in trail.problems())
    trail.writer().sync()
    assert trail.check(retired=[chain]).sound


def test_lines_in_another_order_are_named() -> None:
    trail = Trail(lines=4)
    second, third = trail.raw(2), trail.raw(3)
    trail.put(2, third)
    trail.put(3, second)
    found = trail.problems()
    assert f"primary:{key_of(2)}: is line 3, put into another place" in found
    assert f"primary:{key_of(3)}: is line 2, put into another place" in found


def test_a_forged_line_that_continues_nothing_is_named() -> None:
    trail = Trail(lines=2)
    body = json.loads(trail.raw(2))["body"] | {"sequence": 3}
    body["event"]["id"] = "0" * 16
    trail.put(3, document.encode(body))
    assert any(f"{key_of(3)}: does not continue" in one for one in trail.problems())


def test_a_stranger_in_the_folder_is_named() -> None:
    trail = Trail(lines=1)
    trail.stores["primary"].objects["audit/000000/note.txt"] = (b"x", NOW)
    assert trail.problems() == ["primary:audit/000000/note.txt: is not a line of the trail"]


def test_a_damaged_last_line_does_not_stop_the_trail() -> None:
    trail = Trail(lines=3)
    trail.put(3, b"rotten")
    trail.writer().note("backup", "b4")
    found = trail.problems()
    assert trail.subjects()[-1] == "b4"
    assert not any(key_of(4) in one for one in found), "the line after it is as it should be"


def test_a_store_that_is_down_is_caught_up_later(caplog: pytest.LogCaptureFixture) -> None:
    trail = Trail(lines=1)
    trail.stores["secondary"].answers = False
    with caplog.at_level(logging.ERROR):
        trail.writer("bob").note("restore", "b2")
    assert "The audit trail in secondary misses" in caplog.text
    assert "restore b2 by bob" in caplog.text
    assert "secondary" in trail.check().unknown

    trail.stores["secondary"].answers = True
    report = trail.check()
    assert (report.findings, report.sound) == ([], False)
    assert report.lacking == {"secondary": [f"primary:{key_of(2)}"]}

    assert trail.writer().sync().added == {"primary": 0, "secondary": 1}
    assert trail.check().sound
    assert trail.writer().sync().added == {"primary": 0, "secondary": 0}


def test_a_store_that_does_not_answer_costs_its_timeout_once() -> None:
    trail = Trail(lines=1)
    store = trail.stores["secondary"]
    store.answers = False
    asked = []
    store._begin = lambda: asked.append(1) or _fail()  # type: ignore[method-assign,func-returns-value]
    for number in range(5):
        trail.audit.note("verify", f"b{number}")
    assert len(asked) == 1


def _fail() -> None:
    raise UnreachableError("No answer", remedy="Wait.")


def test_what_must_be_recorded_is_refused_only_where_no_store_takes_it() -> None:
    trail = Trail()
    trail.stores["primary"].answers = False
    trail.audit.require("delete", "b1")
    assert trail.subjects("secondary") == ["b1"]
    trail.stores["secondary"].answers = False
    with pytest.raises(StoreUnavailableError, match="took no line of delete b2"):
        trail.audit.require("delete", "b2")
    trail.audit.note("verify", "b2")  # and what need not be is not failed by it
    with pytest.raises(StoreUnavailableError, match="there is no store"):
        Audit(stores={}, catalog=MemoryCatalog()).require("delete", "b3")


def test_where_writing_is_forbidden_the_refusal_is_for_good(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def deny(*_: Any, **__: Any) -> None:
        raise AccessDeniedError("No s3:PutObject", remedy="Grant it.")

    trail = Trail()
    for store in trail.stores.values():
        monkeypatch.setattr(store, "put", deny)
    with pytest.raises(AccessDeniedError, match="No s3:PutObject"):
        trail.audit.require("delete", "b1")


def test_killed_after_any_operation_the_next_writer_goes_on() -> None:
    whole = Death()
    for after in range(100):
        trail = Trail(lines=2)
        death = Death(after)
        for store in trail.stores.values():
            store.dies_after = death
        try:
            trail.writer().note("delete", "x")
        except Killed:
            pass
        else:
            whole.count = after
            break
        finally:
            for store in trail.stores.values():
                store.dies_after = lambda: False
        trail.writer().note("delete", "y")
        trail.writer().sync()
        assert trail.check().sound, after
    assert whole.count > 5


def test_an_error_is_noted_and_goes_on() -> None:
    trail = Trail()
    with (
        pytest.raises(UnreachableError),
        trail.audit.failing("backup", "b1", stage="dump"),
    ):
        _fail()
    event = next(newest(trail.stores["primary"])).event
    assert (event.result, event.details) == (
        "failed",
        {"stage": "dump", "error": "UnreachableError"},
    )


def test_a_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr("getpass.getuser", nobody)
    assert operating_user().startswith(f"uid {os.getuid()}@")


def test_no_secret_and_nothing_endless_is_written_down() -> None:
    details = details_of(
        {
            "db_password": "hunter2",
            "token": "x",
            "long": "y" * 10_000,
            "nested": {"private_key": "z", "count": 3},
            "names": {"b", "a"},
            "object": object(),
            "line": "one\ntwo",
            **{f"k{number}": number for number in range(100)},
        }
    )
    text = json.dumps(details)
    assert "hunter2" not in text
    assert details["db_password"] == details["token"] == "(not recorded)"
    assert details["nested.private_key"] == details["object"] == "(not recorded)"
    assert (details["nested.count"], details["names"], details["line"]) == (3, "a, b", "one two")
    assert len(str(details["long"])) == 500
    assert len(details) == 40


def test_an_export_proves_later_that_nothing_was_rewritten(tmp_path: Path) -> None:
    trail, path = Trail(lines=3), tmp_path / "trail.jsonl"
    with path.open("w") as out:
        assert export(trail.stores["primary"], out) == 3
    assert Line.decode(path.read_bytes().splitlines()[0], name="1").event.subject == "b1"
    trail.audit.note("backup", "b4")
    assert trail.check(against=path).sound
    # Somebody who can write to every store and the catalog makes the trail anew.
    rewritten = Trail(lines=3)
    trail.stores, trail.catalog = rewritten.stores, rewritten.catalog
    assert trail.check().sound
    assert any(str(path) in one for one in trail.problems(against=path))
    path.write_text("{}\n")
    with pytest.raises(ConfigurationError, match="not an export"):
        trail.check(against=path)


def test_a_trail_with_a_hole_is_not_exported(tmp_path: Path) -> None:
    trail = Trail(lines=3)
    trail.remove(2)
    with (tmp_path / "out").open("w") as out, pytest.raises(DamagedError, match="no line 2"):
        export(trail.stores["primary"], out)
