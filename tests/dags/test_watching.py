"""The trigger that watches the configuration: what it fires for, and what leaves it quiet."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from neuroca_backup.errors import StoreUnavailableError
from neuroca_backup.operators.backup_run import refuse_blindness
from neuroca_backup.triggers.source_changed import Settling, Sight, SourceChangedTrigger
from support.files_runs import FilesBench
from support.registering import register

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

# Seconds; long enough for many looks, each of which takes a few milliseconds.
EVERY = 0.02
PATIENCE = 20.0


class AssetState:
    """Stands in for the state store of the watched asset."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}

    async def aget(self, key: str, default: Any = None) -> Any:
        return self.kept.get(key, default)

    async def aset(self, key: str, value: Any) -> None:
        self.kept[key] = value


class Watched:
    """A configuration with a backup, the trigger over it, and the events that it fired."""

    def __init__(self, bench: FilesBench) -> None:
        self.bench = bench
        self.state = AssetState()
        self.looks = 0
        self.fired: list[dict[str, Any]] = []

    @property
    def file(self) -> Path:
        return self.bench.etc / "app.yaml"

    def during(self, change: Callable[[], Awaitable[None]]) -> list[dict[str, Any]]:
        """Watch while `change` happens, and until nothing is left to be noticed."""
        self.fired = []
        asyncio.run(self._watch(change))
        return self.fired

    async def looked(self, times: int = 4) -> None:
        """Return after so many looks: two to settle, and two in which nothing may happen."""
        target = self.looks + times
        async with asyncio.timeout(PATIENCE):
            while self.looks < target:  # noqa: ASYNC110 - they are counted in another thread
                await asyncio.sleep(EVERY / 2)

    async def _watch(self, change: Callable[[], Awaitable[None]]) -> None:
        trigger = SourceChangedTrigger(source="configuration", every=EVERY, settle=0)
        trigger.asset_state_store = self.state  # type: ignore[assignment]
        look = trigger.look

        def counted() -> Sight:
            self.looks += 1
            return look()

        trigger.look = counted  # type: ignore[method-assign]

        async def follow() -> None:
            async for event in trigger.run():
                self.fired.append(event.payload)

        task = asyncio.create_task(follow())
        try:
            await self.looked()
            await change()
            await self.looked()
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    register(monkeypatch)
    bench = FilesBench(tmp_path)
    monkeypatch.setenv("NEUROCA_BACKUP_CONFIG", str(bench.write_yaml()))
    (bench.etc / "app.yaml").write_text("answer: 42\n")
    bench.back_up()
    return Watched(bench)


async def nothing() -> None:
    pass


def test_what_has_been_backed_up_already_does_not_fire(watched: Watched) -> None:
    assert watched.during(nothing) == []
    assert watched.state.kept["handled"]


def test_a_configuration_that_was_never_backed_up_fires_once(watched: Watched) -> None:
    for store in watched.bench.runtime.stores.values():
        store.delete(watched.bench.listed()[0].ref.manifest_key)

    (event,) = watched.during(nothing)

    assert event["source"] == "configuration"
    assert event["problem"] == ""
    assert len(event["fingerprint"]) == 64
    assert watched.during(nothing) == [], "not again after a restart"


def test_a_change_fires_once_and_times_alone_do_not(watched: Watched) -> None:
    async def touch() -> None:
        os.utime(watched.file, (1, 1))
        watched.file.with_suffix(".new").write_text("answer: 42\n")
        watched.file.with_suffix(".new").replace(watched.file)

    async def edit() -> None:
        watched.file.write_text("answer: 43\n")

    assert watched.during(touch) == []
    assert [event["problem"] for event in watched.during(edit)] == [""]


def test_a_change_made_while_airflow_was_down_fires_after_its_restart(watched: Watched) -> None:
    assert watched.during(nothing) == []
    watched.file.write_text("answer: 43\n")

    assert len(watched.during(nothing)) == 1


def test_a_change_that_a_person_has_backed_up_meanwhile_does_not_fire(watched: Watched) -> None:
    assert watched.during(nothing) == []
    watched.file.write_text("answer: 43\n")
    watched.bench.back_up()

    assert watched.during(nothing) == []


def test_a_change_that_is_taken_back_before_it_has_settled_does_not_fire() -> None:
    settling = Settling(10)

    assert [settling.settled(mark, at=at) for mark, at in (("a", 0), ("a", 5), ("a", 10))] == [
        *(False, False, True),
    ]
    assert not settling.settled("b", at=11)
    assert not settling.settled("a", at=12)
    assert not settling.settled("a", at=21)
    assert settling.settled("a", at=22)
    assert not Settling(0).settled("a", at=0), "one look alone settles nothing"


def test_a_source_that_cannot_be_read_fires_once_so_that_a_run_fails_and_says_so(
    watched: Watched,
) -> None:
    unreadable = watched.bench.etc / "unreadable"

    async def lock() -> None:
        unreadable.touch()

    (event,) = watched.during(lock)
    assert "may not be read" in event["problem"]
    assert event["fingerprint"] == ""
    assert watched.during(nothing) == [], "on call knows"

    unreadable.unlink()
    assert watched.during(nothing) == [], "what can be read again is what was backed up"
    unreadable.touch()
    assert len(watched.during(nothing)) == 1, "and a new problem is a new event"


def test_a_backup_yaml_that_is_broken_is_a_problem_too(watched: Watched, tmp_path: Path) -> None:
    (tmp_path / "backup.yaml").write_text("backup: 7\n")

    (event,) = watched.during(nothing)

    assert "backup" in event["problem"]


def test_stores_that_do_not_answer_make_a_change_fire_all_the_same(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> bool:
        raise StoreUnavailableError("away", remedy="Wait.")

    monkeypatch.setattr("neuroca_backup.services.unchanged.backed_up", away)
    assert len(watched.during(nothing)) == 1


def test_a_run_started_by_a_watcher_that_cannot_see_is_red_though_its_backups_are_made() -> None:
    def started_by(*payloads: dict[str, str]) -> Any:
        events = [SimpleNamespace(extra={"payload": one}) for one in payloads]
        return {"triggering_asset_events": {"asset": events}}

    refuse_blindness(started_by())
    refuse_blindness({"triggering_asset_events": {}})
    refuse_blindness(started_by({"problem": "", "fingerprint": "f"}))
    with pytest.raises(
        AirflowFailException, match=r"changes are not noticed.*/etc may not be read"
    ):
        refuse_blindness(started_by({"problem": "/etc may not be read."}, {"problem": ""}))


def test_the_trigger_can_be_made_again_from_what_it_says_of_itself() -> None:
    from airflow.sdk.module_loading import import_string  # noqa: PLC0415 - after the environment

    place, kwargs = SourceChangedTrigger(source="x", every=1.0, settle=2.0).serialize()

    again = import_string(place)(**kwargs)

    assert isinstance(again, SourceChangedTrigger)
    assert again.serialize() == (place, kwargs)
