"""Retention on every kind of store: what is deleted leaves no object and no version behind."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest

from neuroca_backup.catalog.memory import MemoryCatalog
from neuroca_backup.model.identity import Component
from neuroca_backup.services.inventory import Inventory
from neuroca_backup.services.retention.applying import Retention
from neuroca_backup.stores import Locking
from neuroca_backup.stores.local import LocalStore
from neuroca_backup.stores.s3 import S3Store
from support.histories import BEGIN, BOTH, DAY, SOURCE, History

if TYPE_CHECKING:
    from neuroca_backup.model.endpoint import Endpoint
    from neuroca_backup.stores import Store


class Shelf:
    """A history of eight days in two stores of one kind, and retention over them."""

    def __init__(self, stores: dict[str, Any]) -> None:
        self.stores = stores
        self.history = History()
        self.refs = [self.history.put(day) for day in range(8)]
        for name, filled in self.history.stores.items():
            for key, (data, _) in filled.objects.items():
                stores[name].put(key, data)
                if key.endswith("verification.json"):
                    stores[name].put(key, data)  # a second version, as a second check writes it
        self.now = BEGIN
        self.retention = Retention(
            stores=stores,
            rules=self.history.rules,
            catalog=MemoryCatalog(),
            workers=4,
            clock=lambda: self.now,
        )

    def apply(self, day: float) -> Any:
        self.now = BEGIN + day * DAY
        return self.retention.apply(Component.DATABASE, SOURCE, confirmed=True, actor="test")


def s3(endpoint: Endpoint, name: str, bucket: str, *, lock: bool = False) -> S3Store:
    client = boto3.client(
        "s3",
        endpoint_url=endpoint.extra["endpoint_url"],
        region_name=endpoint.extra["region_name"],
        aws_access_key_id=endpoint.user,
        aws_secret_access_key=endpoint.password,
    )
    region = endpoint.extra["region_name"]
    client.create_bucket(
        Bucket=bucket,
        CreateBucketConfiguration={"LocationConstraint": region},
        ObjectLockEnabledForBucket=lock,
    )
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    return S3Store(name, bucket=bucket, region=region, path="/backups", client=client)


@pytest.fixture(params=["local", "s3"])
def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shelf]:
    if request.param == "local":
        local = {name: LocalStore(name, tmp_path / name) for name in BOTH}
        for store in local.values():
            store.initialise()
        yield Shelf(local)
    else:
        regions = request.getfixturevalue("object_stores")
        mark = tmp_path.name.replace("_", "-")[-30:].lower().strip("-")
        yield Shelf(
            {
                "primary": s3(regions["us-west-2"], "primary", f"ret-us-{mark}"),
                "secondary": s3(regions["eu-central-1"], "secondary", f"ret-eu-{mark}"),
            }
        )


def left(store: Store, prefix: str) -> list[str]:
    """Return every object of a prefix, and of a bucket every version and delete marker."""
    found = [one.key for one in store.list(prefix)]
    if isinstance(store, S3Store):
        answer = store._client.list_object_versions(
            Bucket=store._bucket, Prefix=f"backups/{prefix}/"
        )
        found += [one["Key"] for one in answer.get("Versions", ())]
        found += [one["Key"] for one in answer.get("DeleteMarkers", ())]
    return found


def test_what_is_deleted_leaves_no_object_and_no_version(shelf: Shelf) -> None:
    gone, kept = shelf.refs[:3], shelf.refs[3:]
    assert len(shelf.apply(32.5).expired) == 3
    assert Inventory(shelf.stores).look(gone[0]).expired
    assert shelf.apply(32.9).erased == []
    assert shelf.apply(39.6).erased == [one.backup_id for one in gone[::-1]]
    for store in shelf.stores.values():
        for ref in gone:
            assert left(store, ref.prefix) == []
        for ref in kept:
            assert len([one.key for one in store.list(ref.prefix)]) >= 4
    # Day 3 and 4 have been marked by now; the newest three stay for good.
    shelf.apply(100)
    shelf.apply(108)
    left_over = Inventory(shelf.stores).newest_first(Component.DATABASE, SOURCE)
    assert [one.ref for one in left_over] == shelf.refs[:4:-1]


def test_a_sweep_removes_what_a_killed_run_left(shelf: Shelf) -> None:
    ref = shelf.history.ref(9)
    for store in shelf.stores.values():
        with store.writer(ref.member_key("0badcafe", "own")) as out:
            out.write(io.BytesIO(b"x" * 1000).read())
    shelf.now = datetime.now(UTC) + timedelta(days=2)
    assert shelf.retention.sweep(actor="test").objects == 0
    shelf.now += timedelta(days=2)
    swept = shelf.retention.sweep(actor="test")
    assert (swept.objects, swept.size, swept.strange) == (2, 2000, 0)
    for store in shelf.stores.values():
        assert left(store, ref.prefix) == []
        assert len(list(store.folders(f"database/{SOURCE}"))) == 8


def test_a_bucket_tells_what_it_locks(object_stores: dict[str, Endpoint]) -> None:
    store = s3(object_stores["us-west-2"], "primary", "ret-locking", lock=True)
    assert isinstance(store, Locking)
    store.put("a/plain", b"x")
    assert store.locked_until("a/plain") is None
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    for key, words in (
        ("a/retained", {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": until}),
        ("a/legal", {"ObjectLockLegalHoldStatus": "ON"}),
    ):
        store._client.put_object(Bucket=store._bucket, Key=f"backups/{key}", Body=b"x", **words)
    assert store.locked_until("a/retained") == until
    legal = store.locked_until("a/legal")
    assert legal is not None
    assert legal > datetime.now(UTC) + timedelta(days=365 * 1000)
