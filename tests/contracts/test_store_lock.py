"""Object Lock: what is sent to S3, what is read back, and what our own code then refuses.

The emulator stores locks and refuses to delete locked versions; it also lets a lock be shortened,
which AWS does not, so that ours never asks for it is tested here.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from neuroca_backup.errors import AccessDeniedError, ConfigurationError, PermanentError
from neuroca_backup.model.identity import Component
from neuroca_backup.model.retention import Tombstone
from neuroca_backup.services import locking
from neuroca_backup.services.inventory import holds, read_manifest
from neuroca_backup.services.locking import Locks
from neuroca_backup.services.retention import erasing
from support import buckets
from support.histories import History

if TYPE_CHECKING:
    from collections.abc import Iterator

    from neuroca_backup.model.identity import BackupRef
    from neuroca_backup.stores.s3 import S3Store

NOW = datetime.now(UTC)
DAY = timedelta(days=1)
KEPT = 30 * DAY


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with buckets.emulator() as found:
        yield found


def locking_store(url: str, *, mode: str = "governance", name: str = "primary") -> S3Store:
    of = buckets.bucket(url, locking=True)
    return buckets.store(url, name, of=of, lock_mode=mode, lock_margin=DAY)


@pytest.fixture
def store(url: str) -> S3Store:
    return locking_store(url)


def lock_of(url: str, store: S3Store, key: str) -> tuple[str | None, datetime | None]:
    answer = buckets.client(url).head_object(**buckets.address(store, key))
    return answer.get("ObjectLockMode"), answer.get("ObjectLockRetainUntilDate")


def about(found: datetime | None, expected: datetime) -> bool:
    return found is not None and timedelta() <= found - expected <= timedelta(seconds=2)


def test_a_locked_object_is_not_deleted_and_its_lock_never_shortened(
    url: str, store: S3Store
) -> None:
    store.put("member", b"x")
    assert store.locked_until("member") is None
    store.retain("member", until=NOW + 10 * DAY)
    store.retain("member", until=NOW + 5 * DAY)
    mode, until = lock_of(url, store, "member")
    assert mode == "GOVERNANCE"
    assert about(until, NOW + 10 * DAY)
    store.retain("member", until=NOW + 20 * DAY)
    assert about(store.locked_until("member"), NOW + 20 * DAY)
    with pytest.raises(AccessDeniedError, match="no lock on the object"):
        store.delete("member")
    assert store.get("member") == b"x"


def test_a_stricter_mode_replaces_a_laxer_one_and_is_not_replaced(url: str) -> None:
    strict = locking_store(url, mode="compliance")
    lax = buckets.store(
        url,
        of=buckets.address(strict, "member")["Bucket"],
        lock_mode="governance",
        lock_margin=DAY,
    )
    lax.put("member", b"x")
    lax.retain("member", until=NOW + 9 * DAY)
    strict.retain("member", until=NOW + 5 * DAY)
    mode, until = lock_of(url, strict, "member")
    assert mode == "COMPLIANCE"
    assert about(until, NOW + 9 * DAY)
    lax.retain("member", until=NOW + 12 * DAY)
    mode, until = lock_of(url, strict, "member")
    assert mode == "COMPLIANCE"
    assert about(until, NOW + 12 * DAY)


def test_an_overwrite_leaves_the_locked_version(url: str, store: S3Store) -> None:
    store.put("member", b"ours")
    store.retain("member", until=NOW + 10 * DAY)
    store.put("member", b"an intruder's")
    s3 = buckets.client(url)
    listed = s3.list_object_versions(Bucket=buckets.address(store, "")["Bucket"])["Versions"]
    old = next(one for one in listed if not one["IsLatest"])
    answer = s3.get_object(**buckets.address(store, "member"), VersionId=old["VersionId"])
    assert answer["Body"].read() == b"ours"
    assert answer["ObjectLockMode"] == "GOVERNANCE"


def test_a_bucket_that_cannot_lock_is_refused_with_how_to_mend_it(url: str) -> None:
    plain = buckets.store(url, lock_mode="governance", lock_margin=DAY)
    with pytest.raises(ConfigurationError, match="has no Object Lock") as caught:
        plain.check()
    assert "put-object-lock-configuration" in caught.value.remedy
    assert not plain.locks()

    store = locking_store(url)
    store.check()
    assert store.locks()
    buckets.client(url).put_object_lock_configuration(
        Bucket=buckets.address(store, "")["Bucket"],
        ObjectLockConfiguration={
            "ObjectLockEnabled": "Enabled",
            "Rule": {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 3}},
        },
    )
    with pytest.raises(ConfigurationError, match="locks by default"):
        store.check()


def stored(store: S3Store, history: History, ref: BackupRef) -> Any:
    """Copy a backup from a history in memory into the bucket; return its manifest."""
    for key, (data, _) in history.stores["primary"].objects.items():
        if key.startswith(ref.prefix):
            store.put(key, data)
    return read_manifest(store, ref).manifest


def test_what_a_backup_needs_is_locked_as_long_as_it_and_what_changes_is_not(
    url: str, store: S3Store
) -> None:
    history = History()
    full, child = history.put(0), history.put(3, parent=0)
    referring = history.put(9, refers=[0])
    locks = Locks(period=lambda *_: KEPT, workers=2)

    def until(key: str) -> datetime | None:
        return lock_of(url, store, key)[1]

    manifests = [stored(store, history, ref) for ref in (full, child, referring)]
    of_full = [full.manifest_key, full.keys_key("a1b2c3d4"), full.member_key("a1b2c3d4", "own")]
    locks.protect(store, manifests[0], standing=False)
    assert until(full.manifest_key) is None
    locks.protect(store, manifests[0], standing=True)
    for key in of_full:
        assert about(until(key), manifests[0].started_at + KEPT + DAY), key
    assert until(full.verification_key) is None

    locks.protect(store, manifests[1], standing=True)
    for key in (*of_full, child.manifest_key):
        assert about(until(key), manifests[1].started_at + KEPT + DAY), key
    # The full one is not needed by who only refers to its member and its keys.
    locks.protect(store, manifests[2], standing=True)
    for key in of_full[1:]:
        assert about(until(key), manifests[2].started_at + KEPT + DAY), key
    assert about(until(full.manifest_key), manifests[1].started_at + KEPT + DAY)

    locks.protect(store, manifests[0], standing=True)  # repeated, nothing gets shorter
    assert about(until(full.member_key("a1b2c3d4", "own")), manifests[2].started_at + KEPT + DAY)


def test_a_backup_with_one_locked_object_is_deleted_nowhere(url: str, store: S3Store) -> None:
    history = History()
    ref = history.put(0)
    stored(store, history, ref)
    other = buckets.store(url, "secondary")
    stored(other, history, ref)
    store.retain(ref.member_key("a1b2c3d4", "own"), until=NOW + DAY)
    mark = Tombstone(
        backup_id=ref.backup_id,
        expired_at=NOW - 9 * DAY,
        erase_after=NOW - DAY,
        reason="old",
        actor="test",
    )
    before = [[one.key for one in of.list()] for of in (store, other)]
    stores: dict[str, Any] = {"primary": store, "secondary": other}

    def erase(now: datetime) -> bool:
        begun = mark.model_copy(update={"erasing_since": now})
        return erasing.erase(
            stores,
            ref,
            begun=begun,
            now=now,
            workers=2,
            before_first=lambda: None,
            before_last=lambda: None,
        )

    with pytest.raises(PermanentError, match="is locked in primary until"):
        erase(NOW)
    assert [[one.key for one in of.list()] for of in (store, other)] == before
    store.hold(ref.manifest_key, on=True)
    with pytest.raises(PermanentError, match="under a legal hold in primary"):
        erase(NOW + 9 * DAY)
    assert [[one.key for one in of.list()] for of in (store, other)] == before


def test_a_legal_hold_covers_the_chain_and_its_release_leaves_what_others_hold(
    url: str, store: S3Store
) -> None:
    history = History()
    full, child = history.put(0), history.put(3, parent=0)
    for ref in (full, child):
        stored(store, history, ref)
    stores: dict[str, Any] = {"primary": store}

    def held() -> set[str]:
        return {
            one.key
            for one in store.list(Component.DATABASE.value)
            if store.locked_until(one.key) is not None
        }

    locking.hold(stores, child, workers=2)
    whole = held()
    assert {full.manifest_key, child.manifest_key, child.keys_key("a1b2c3d4")} <= whole
    assert full.verification_key not in whole
    locking.hold(stores, child, workers=2)  # repeated, it does no harm
    assert held() == whole
    with pytest.raises(AccessDeniedError):
        store.delete(child.manifest_key)

    locking.hold(stores, full, workers=2)
    locking.release(stores, child, others=[full], workers=2)
    assert held() == {key for key in whole if key.startswith(full.prefix)}
    locking.release(stores, full, others=[], workers=2)
    assert held() == set()
    store.delete(child.manifest_key)
    assert not holds(store, child)
