"""Erasing on demand: what keeps a backup, what is certified, and what is not."""

from __future__ import annotations

import contextlib
import hashlib
from datetime import timedelta
from typing import Any

import pytest

from neuroca_backup.errors import NotFoundError, StoreUnavailableError, TargetRefusedError
from neuroca_backup.model.erasure import Erasure
from neuroca_backup.model.identity import BackupRef
from neuroca_backup.services.audit import newest
from neuroca_backup.services.retention import certifying
from support.histories import BOTH, History
from support.memory_store import Death, Killed


@pytest.fixture
def history() -> History:
    made = History()
    for day in range(3):
        made.put(day)
    return made.at(3)


def erase(history: History, ref: BackupRef) -> Erasure:
    return history.retention.erase(ref, reason="a court order", actor="ann")


def certificate(history: History, ref: BackupRef, store: str = "primary") -> Erasure | None:
    return certifying.read(history.stores[store], ref)


def left(history: History, ref: BackupRef) -> list[str]:
    return history.objects_of(ref)


def test_what_was_destroyed_is_certified_in_every_store_and_in_the_audit_trail(
    history: History,
) -> None:
    ref = history.ref(2)
    found = erase(history, ref)
    assert left(history, ref) == []
    assert found.completed_at == history.now
    assert (found.reason, found.actor, found.stores) == ("a court order", "ann", BOTH)
    digest = hashlib.sha256(b"keys").hexdigest()
    assert [(one.store, one.sha256, one.versions) for one in found.keys] == [
        ("primary", digest, 1),
        ("secondary", digest, 1),
    ]
    assert certificate(history, ref) == certificate(history, ref, "secondary") == found
    events = [line.event for line in newest(history.trails["primary"])]
    assert [(one.action, one.result) for one in events] == [
        ("erase", "done"),
        ("erase", "intended"),
    ]
    assert events[0].details["sha256"] == hashlib.sha256(found.encode()).hexdigest()
    assert ref.backup_id not in {one.backup_id for one in history.catalog.backups()}
    assert history.retention.sweep(actor="t").strange == 0
    assert certificate(history, ref) == found, "a certificate is never swept"


def test_what_expires_gets_a_certificate_too(history: History) -> None:
    history.put(3)
    history.pass_by(35, 43)
    found = certificate(history, history.ref(0))
    assert found is not None
    assert found.completed_at is not None
    assert "older than 30 days" in found.reason


def test_a_hold_a_lock_and_a_younger_backup_keep_it(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = history.ref(0)
    before = history.snapshot()
    history.put(4, refers=[0])
    history.put(5, parent=4)
    history.at(6)
    with pytest.raises(TargetRefusedError, match="2 younger backups need it") as refused:
        erase(history, ref)
    assert history.ref(5).backup_id in str(refused.value)
    history.retention.hold(history.ref(1), reason="audit", until=None, actor="bob")
    with pytest.raises(TargetRefusedError, match="on hold by bob: audit"):
        erase(history, history.ref(1))
    lock = history.now + timedelta(days=5)
    monkeypatch.setattr(
        type(history.stores["primary"]), "locked_until", lambda *_: lock, raising=False
    )
    with pytest.raises(TargetRefusedError, match="locked in primary until"):
        erase(history, history.ref(2))
    with pytest.raises(NotFoundError):
        erase(history, history.ref(9))
    for name, objects in before.items():
        for key, data in objects.items():
            assert history.stores[name].objects[key][0] == data


def test_a_store_that_is_down_leaves_all_as_it_is(history: History) -> None:
    ref = history.ref(2)
    history.stores["secondary"].answers = False
    with pytest.raises(StoreUnavailableError):
        erase(history, ref)
    history.stores["secondary"].answers = True
    assert len(left(history, ref)) == 8
    assert certificate(history, ref) is None


def test_a_store_that_deletes_nothing_leaves_it_pending_until_it_does(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref, store = history.ref(2), history.stores["secondary"]
    real = store.delete

    def refuse(key: str) -> None:
        raise StoreUnavailableError(f"{key} is not deleted", remedy="Wait.")

    monkeypatch.setattr(store, "delete", refuse)
    with pytest.raises(StoreUnavailableError):
        erase(history, ref)
    pending = certificate(history, ref)
    assert pending is not None
    assert (pending.completed_at, len(pending.keys)) == (None, 2)
    assert [one.event.result for one in newest(history.trails["primary"])] == ["intended"]

    monkeypatch.setattr(store, "delete", real)
    history.at(4).apply()
    found = certificate(history, ref)
    assert found is not None
    assert found.completed_at == history.now
    assert len(found.keys) == 2, "what the first try destroyed is not forgotten"
    assert (found.actor, found.reason) == ("ann", "a court order")
    assert left(history, ref) == []


def test_what_a_store_says_it_deleted_and_did_not_is_never_certified(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref, store = history.ref(2), history.stores["secondary"]
    kept = store.objects[ref.keys_key("a1b2c3d4")]
    real = store.delete

    def lie(key: str) -> None:
        real(key)
        if key == ref.checked_key:  # the keys come back when all was looked at
            monkeypatch.setattr(store, "put", put)

    real_put = store.put

    def put(key: str, data: bytes, **more: Any) -> None:
        real_put(key, data, **more)

    monkeypatch.setattr(store, "delete", lie)
    real_list = store.list

    def listing(prefix: str = "") -> Any:
        found = list(real_list(prefix))
        if prefix == ref.prefix and all("keys" not in one.key for one in found):
            store.objects[ref.keys_key("a1b2c3d4")] = kept
        return iter(found)

    monkeypatch.setattr(store, "list", listing)
    with pytest.raises(StoreUnavailableError, match=r"still there|was written while"):
        erase(history, ref)
    found = certificate(history, ref)
    assert found is not None
    assert found.completed_at is None


def test_killed_after_any_operation_the_next_run_certifies_the_same() -> None:
    def run(death: Death) -> History:
        history = History()
        for day in range(3):
            history.put(day)
        history.at(3)
        for store in history.stores.values():
            store.dies_after = death
        with contextlib.suppress(Killed):
            erase(history, history.ref(2))
        for store in history.stores.values():
            store.dies_after = lambda: False
        return history

    whole = Death()
    expected = certificate(run(whole), History().ref(2))
    assert expected is not None
    pending = 0
    for after in range(whole.count):
        history = run(Death(after))
        ref = history.ref(2)
        if left(history, ref) and len(left(history, ref)) == 8:
            continue  # it had not begun
        pending += 1
        history.apply()
        assert left(history, ref) == [], after
        assert certificate(history, ref) == certificate(history, ref, "secondary") == expected, (
            after
        )
    assert pending > 10
