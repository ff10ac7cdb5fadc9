"""A bucket as it was: what an intruder overwrites or deletes afterwards does not win."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from neuroca_backup.errors import (
    BackupError,
    ConfigurationError,
    DamagedError,
    NotFoundError,
    PermanentError,
)
from neuroca_backup.operators.restore_request import RestoreRequest
from neuroca_backup.services import past
from neuroca_backup.stores.local import LocalStore
from support import buckets, wiring

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from neuroca_backup.model.endpoint import Endpoint
    from neuroca_backup.runtime import Runtime


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with buckets.emulator() as found:
        yield found


def moment() -> datetime:
    """Give a moment with a whole second between it and all before and after it."""
    time.sleep(1.1)
    found = datetime.now(UTC)
    time.sleep(1.1)
    return found


def test_every_key_is_what_it_was_then(url: str) -> None:
    store = buckets.store(url)
    gone, kept, later = "d/s/1/gone", "d/s/1/kept", "d/s/2/later"
    store.put("d/s/0/before", b"deleted before")
    time.sleep(1.1)
    buckets.client(url).delete_object(**buckets.address(store, "d/s/0/before"))
    store.put(gone, b"one")
    store.put(kept, b"first")
    store.put(kept, b"second")
    then = moment()
    store.put(kept, b"overwritten")
    buckets.client(url).delete_object(**buckets.address(store, gone))
    store.put(later, b"new")

    view = store.as_of(then)
    assert [one.key for one in store.list("d")] == [kept, later]
    assert [one.key for one in view.list("d")] == [gone, kept]
    assert [one.key for one in view.list()] == [gone, kept]
    assert list(view.folders("d/s")) == ["1"]
    assert (view.get(gone), view.get(kept)) == (b"one", b"second")
    assert view.stat(kept).size == len(b"second")
    with view.reader(kept, start=1, length=3) as opened:
        assert opened.read() == b"eco"
    for missing in (later, "d/s/0/before", "never"):
        with pytest.raises(NotFoundError, match="there was no such object"):
            view.get(missing)
    view.check()
    assert "as of" in view.location


def test_nothing_is_changed_through_a_view(url: str) -> None:
    store = buckets.store(url)
    store.put("member", b"x")
    view = store.as_of(datetime.now(UTC) + timedelta(seconds=1))
    for change in (
        lambda: view.put("member", b"y"),
        lambda: view.put("other", b"y", create_only=True),
        lambda: view.writer("other"),
        lambda: view.delete("member"),
        lambda: view.copy_from(store, "member"),
        lambda: view.sweep_uploads(older_than=timedelta()),
    ):
        with pytest.raises(PermanentError, match="a view of the past"):
            change()
    assert [one.key for one in store.list()] == ["member"]
    assert store.get("member") == b"x"


def test_a_history_longer_than_a_page_is_read_whole(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = buckets.store(url)
    for key in ("a", "b", "c"):
        for number in range(3):
            store.put(key, b"%d" % number)
        buckets.client(url).delete_object(**buckets.address(store, key))
        store.put(key, b"last")
    view: Any = store.as_of(datetime.now(UTC) + timedelta(seconds=1))
    pages = view._pages

    def small(operation: str, prefix: str, **arguments: Any) -> Iterator[dict[str, Any]]:
        return pages(operation, prefix, **arguments, PaginationConfig={"PageSize": 2})

    monkeypatch.setattr(view, "_pages", small)
    assert [one.key for one in view.list()] == ["a", "b", "c"]
    assert {view.get(key) for key in ("a", "b", "c")} == {b"last"}


def test_who_keeps_no_versions_is_left_out_or_refused(url: str, tmp_path: Path) -> None:
    local = LocalStore("secondary", tmp_path / "nas")
    local.initialise()
    plain = buckets.store(url, of=buckets.bucket(url, versioned=False))
    with pytest.raises(ConfigurationError, match="keeps no versions") as caught:
        past.as_of({"primary": plain, "secondary": local}, datetime.now(UTC))
    assert str(tmp_path) in caught.value.problem
    assert "Only a bucket with versioning" in caught.value.remedy
    views = past.as_of({"primary": buckets.store(url), "secondary": local}, datetime.now(UTC))
    assert list(views) == ["primary"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("yesterday", "not a time"),
        ("2026-11-23T02:00", "not a time with an offset"),
        ("2999-01-01T00:00Z", "in the future"),
    ],
)
def test_a_moment_has_an_offset_and_is_past(text: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        past.moment(text, field="--as-of")


def attack(runtime: Runtime, prefix: str) -> int:
    """Overwrite the half of what every store has below `prefix`, delete the rest; plain calls."""
    count = 0
    for store in runtime.stores.values():
        s3: Any = store
        for number, found in enumerate(list(store.list(prefix))):
            address = {"Bucket": s3._bucket, "Key": s3._root + found.key}
            if found.key.endswith("manifest.json") or number % 2:
                s3._client.put_object(**address, Body=b"{}")
            else:
                s3._client.delete_object(**address)
            count += 1
    return count


def test_a_restore_as_of_before_an_attack_gives_every_row(
    postgres: Endpoint,
    postgres_twin: Endpoint,
    object_stores: Mapping[str, Endpoint],
    tmp_path: Path,
) -> None:
    with wiring.scratch_database(postgres, "as_of_source", also_on=[postgres_twin]) as source:
        runtime = wiring.wire(
            wiring.region_places(object_stores), postgres=source, spool=tmp_path / "spool"
        )
        ref = wiring.back_up(runtime)
        then = moment()
        assert attack(runtime, "database") > 4
        wiring.add_rows(source, 100)

        with pytest.raises(BackupError, match="--as-of TIME"):
            wiring.restore(runtime, postgres_twin, ref=ref)
        with pytest.raises(NotFoundError, match="--as-of TIME"):
            wiring.plan_of(runtime)
        with pytest.raises(DamagedError):
            runtime.verifier.verify(ref)

        with pytest.raises(ConfigurationError, match=r"as_of .* lies in the future"):
            RestoreRequest.parse(
                {"source": "postgres", "as_of": "2999-01-01T00:00:00Z"}, runtime.settings
            )
        before = runtime.at(then)
        plan = wiring.plan_of(before)
        assert (plan.backup_id, plan.verified) == (ref.backup_id, True)
        assert plan.as_of == then.isoformat()
        results = before.verifier.verify(ref)
        assert all(result.sound for result in results.values())
        assert set(before.stores) == {"primary", "secondary"}
        wiring.restore(before, postgres_twin, ref=ref)
        assert wiring.count_rows(postgres_twin, "as_of_source") == 200
