"""The journal of a recovery on every kind of store: nothing is lost, nothing counts twice."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest

from neuroca_backup.errors import (
    AccessDeniedError,
    DamagedError,
    NotFoundError,
    StoreUnavailableError,
)
from neuroca_backup.model.identity import Component
from neuroca_backup.model.recovery import Declared, EventKind, Objective, RecoveryRef
from neuroca_backup.services.recovery.journal import Journal, recoveries
from neuroca_backup.stores.local import LocalStore
from neuroca_backup.stores.s3 import S3Store
from support.memory_store import Death, Killed, MemoryStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from neuroca_backup.model.endpoint import Endpoint
    from neuroca_backup.stores import Store

AT = datetime(2026, 11, 23, 2, 0, tzinfo=UTC)
REF = RecoveryRef.new(at=AT, drill=False, run="test")
BOTH = ("primary", "secondary")
RESTORED = EventKind.RESTORED


def declared(**changes: Any) -> Declared:
    fields: dict[str, Any] = {
        "recovery_id": REF.recovery_id,
        "what": "the region burnt down",
        "declared_at": AT,
        "recorded_at": AT + timedelta(minutes=5),
        "actor": "sre@host",
        "drill": False,
        "components": (Component.DATABASE,),
        "target": "the new environment",
        "objectives": {"database": Objective(limit_seconds=14400, sources=("postgres",))},
    }
    return Declared(**{**fields, **changes})


def memory() -> dict[str, Any]:
    return {name: MemoryStore(name, lambda: AT) for name in BOTH}


def local(root: Path) -> dict[str, Any]:
    made = {name: LocalStore(name, root / name) for name in BOTH}
    for one in made.values():
        one.initialise()
    return made


def s3(endpoint: Endpoint, name: str, path: str) -> S3Store:
    client = boto3.client(
        "s3",
        endpoint_url=endpoint.extra["endpoint_url"],
        region_name=endpoint.extra["region_name"],
        aws_access_key_id=endpoint.user,
        aws_secret_access_key=endpoint.password,
    )
    return S3Store(
        name,
        bucket=endpoint.extra["bucket"],
        region=endpoint.extra["region_name"],
        path=path,
        client=client,
    )


@pytest.fixture(params=["local", "s3"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, Store]]:
    if request.param == "local":
        yield local(tmp_path)
        return
    regions = request.getfixturevalue("object_stores")
    yield {
        name: s3(region, name, f"/journal-{tmp_path.name}")
        for name, region in zip(BOTH, regions.values(), strict=True)
    }


def journal(stores: dict[str, Any], *, minute: float = 10) -> Journal:
    return Journal(stores, REF.recovery_id, clock=lambda: AT + timedelta(minutes=minute))


def append(stores: dict[str, Any], subject: str = "postgres", *, minute: float = 10) -> Any:
    return journal(stores, minute=minute).append(
        RESTORED, subject, once=f"restored:{subject}:1", actor="airflow", details={"bytes": 7}
    )


def subjects(stores: dict[str, Any]) -> list[str]:
    return [one.subject for one in journal(stores).read().events]


def test_what_is_written_is_read_in_the_order_of_time(stores: dict[str, Any]) -> None:
    assert journal(stores).declare(declared()) == declared()
    append(stores, "redis", minute=20)
    append(stores, "postgres", minute=10)
    found = journal(stores).read()
    assert found.declared == declared()
    assert [(one.subject, one.at - AT, one.details) for one in found.events] == [
        ("postgres", timedelta(minutes=10), {"bytes": 7}),
        ("redis", timedelta(minutes=20), {"bytes": 7}),
    ]
    assert (found.unreachable, found.findings) == ({}, ())
    for store in stores.values():
        assert len(list(store.list(REF.prefix))) == 3
    assert recoveries(stores) == ([REF], {})


def test_the_same_event_told_again_counts_once_and_keeps_its_time(stores: dict[str, Any]) -> None:
    journal(stores).declare(declared())
    first = append(stores, minute=10)
    assert append(stores, minute=30) == first
    assert subjects(stores) == ["postgres"]
    assert all(len(list(one.list(REF.events_prefix))) == 1 for one in stores.values())


def test_documents_lie_beside_and_are_replaced(stores: dict[str, Any]) -> None:
    for text in (b"{}", b'{"a":1}'):
        journal(stores).attach("plan.json", text)
    assert journal(stores).attachment("plan.json") == b'{"a":1}'
    with pytest.raises(NotFoundError, match=r"no report\.md of"):
        journal(stores).attachment("report.md")


def test_a_recovery_that_nobody_declared_does_not_exist(stores: dict[str, Any]) -> None:
    append(stores)
    with pytest.raises(NotFoundError, match="There is no"):
        journal(stores).read()


def test_a_retry_goes_on_with_what_was_declared_first() -> None:
    stores = memory()
    first = journal(stores).declare(declared())
    again = declared(declared_at=AT + timedelta(hours=1), recorded_at=AT + timedelta(hours=1))
    assert journal(stores).declare(again) == first
    assert journal(stores).read().declared == first


@pytest.mark.parametrize("down", BOTH)
def test_one_store_that_is_down_is_enough_and_gets_everything_later(down: str) -> None:
    stores = memory()
    stores[down].answers = False
    one = journal(stores)
    one.declare(declared())
    one.append(RESTORED, "postgres", once="a", actor="x")
    assert set(one.missed) == {down}
    found = one.read()
    assert [event.subject for event in found.events] == ["postgres"]
    assert set(found.unreachable) == {down}
    stores[down].answers = True
    assert journal(stores).read().findings == (f"{down} lacks 1 of 1 events",)
    assert journal(stores).spread() == 2
    assert stores["primary"].objects.keys() == stores["secondary"].objects.keys()
    assert journal(stores).read().findings == ()
    assert journal(stores).spread() == 0


def test_a_region_that_is_denied_is_left_out_like_one_that_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stores = memory()

    def deny() -> None:
        raise AccessDeniedError("403 from us-west-2", remedy="Ask.")

    monkeypatch.setattr(stores["primary"], "check", deny)
    journal(stores).declare(declared())
    append(stores)
    found = journal(stores).read()
    assert [event.subject for event in found.events] == ["postgres"]
    assert "403" in found.unreachable["primary"]
    assert stores["primary"].objects == {}


def test_events_in_different_stores_are_put_together() -> None:
    stores = memory()
    journal(stores).declare(declared())
    for minute, (lost, subject) in enumerate(zip(BOTH, ("redis", "postgres"), strict=True)):
        stores[lost].answers = False
        append(stores, subject, minute=minute)
        stores[lost].answers = True
    assert subjects(stores) == ["redis", "postgres"]


def test_without_any_store_nothing_is_said() -> None:
    stores = memory()
    journal(stores).declare(declared())
    for one in stores.values():
        one.answers = False
    with pytest.raises(StoreUnavailableError, match="No store answers"):
        append(stores)
    with pytest.raises(StoreUnavailableError, match="No store answers"):
        journal(stores).read()
    with pytest.raises(StoreUnavailableError, match="No store answers"):
        recoveries(stores)


def test_what_only_a_silent_store_can_have_is_not_called_absent() -> None:
    stores = memory()
    stores["primary"].answers = False
    with pytest.raises(StoreUnavailableError, match="not all do"):
        journal(stores).read()


def test_a_directory_that_is_not_mounted_is_no_empty_journal(tmp_path: Path) -> None:
    stores = local(tmp_path)
    journal(stores).declare(declared())
    append(stores)
    (tmp_path / "primary").rename(tmp_path / "unmounted")
    (tmp_path / "primary").mkdir()
    found = journal(stores).read()
    assert [event.subject for event in found.events] == ["postgres"]
    assert set(found.unreachable) == {"primary"}


def test_killed_anywhere_and_repeated_it_is_whole_and_counts_once() -> None:
    for after in range(40):
        stores = memory()
        death = Death(after)
        for one in stores.values():
            one.dies_after = death
        try:
            journal(stores).declare(declared())
            append(stores)
        except Killed:
            finished = False
        else:
            finished = True
        for one in stores.values():
            one.dies_after = lambda: False
        journal(stores).declare(declared())
        append(stores, minute=30)
        found = journal(stores).read()
        assert ([event.subject for event in found.events], found.findings) == (["postgres"], ())
        assert stores["primary"].objects.keys() == stores["secondary"].objects.keys()
        if finished:
            return
    pytest.fail("it never came to its end")


def test_two_attempts_at_once_count_as_the_earlier_one() -> None:
    stores = memory()
    journal(stores).declare(declared())
    append(stores, minute=10)
    others = memory()
    append(others, minute=9)
    stores["secondary"].objects.update(others["secondary"].objects)
    found = journal(stores).read()
    assert [event.at - AT for event in found.events] == [timedelta(minutes=9)]


def damage(store: MemoryStore, part: str) -> str:
    (key,) = [one for one in store.objects if part in one]
    data, at = store.objects[key]
    store.objects[key] = (data.replace(b"postgres", b"mongodb!"), at)
    return key


def test_a_damaged_event_is_read_elsewhere_and_named() -> None:
    stores = memory()
    journal(stores).declare(declared())
    append(stores)
    key = damage(stores["primary"], "/events/")
    found = journal(stores).read()
    assert [event.subject for event in found.events] == ["postgres"]
    (finding,) = found.findings
    assert f"primary:{key}" in finding


def test_an_event_that_is_damaged_everywhere_is_an_error_or_in_a_report_a_finding() -> None:
    stores = memory()
    journal(stores).declare(declared())
    append(stores)
    keys = [damage(one, "/events/") for one in stores.values()]
    with pytest.raises(DamagedError, match=keys[0]):
        journal(stores).read()
    found = journal(stores).read(tolerant=True)
    assert (found.events, len(found.findings)) == ((), 2)
    append(stores, minute=30)
    assert [one.subject for one in journal(stores).read(tolerant=True).events] == ["postgres"]


def test_an_event_under_another_name_is_not_believed() -> None:
    stores = memory()
    journal(stores).declare(declared())
    append(stores)
    for one in stores.values():
        (key,) = [key for key in one.objects if "/events/" in key]
        one.objects[key.replace("-restored-", "-failed-")] = one.objects.pop(key)
    with pytest.raises(DamagedError, match="is another event"):
        journal(stores).read()


def test_what_was_declared_is_read_elsewhere_when_it_is_damaged() -> None:
    stores = memory()
    journal(stores).declare(declared())
    damage(stores["primary"], "declared.json")
    assert journal(stores).read().declared == declared()
    damage(stores["secondary"], "declared.json")
    with pytest.raises(DamagedError, match=r"declared\.json"):
        journal(stores).read()
    with pytest.raises(DamagedError, match=r"declared\.json"):
        journal(stores).declare(declared())


def test_what_cannot_be_read_now_is_not_called_damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    stores = memory()
    journal(stores).declare(declared())
    append(stores)
    for one in stores.values():
        whole = one.get

        def get(key: str, *, whole: Any = whole) -> bytes:
            if "/events/" in key:
                raise StoreUnavailableError("cut short", remedy="Wait.")
            found: bytes = whole(key)
            return found

        monkeypatch.setattr(one, "get", get)
    with pytest.raises(StoreUnavailableError, match="cut short"):
        journal(stores).read()


def test_what_was_read_is_not_read_again() -> None:
    stores = memory()
    one = journal(stores)
    one.declare(declared())
    append(stores)
    one.read()
    for store in stores.values():
        for key in [key for key in store.objects if "/events/" in key]:
            store.objects[key] = (b"not read", AT)
    assert [event.subject for event in one.read().events] == ["postgres"]
