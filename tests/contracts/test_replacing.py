"""Changing a small object that others may change, and versions: on every store that can."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest

from neuroca_backup.errors import BackupError, NotFoundError, StoreUnavailableError
from neuroca_backup.stores import Replacing, Store, Versioning
from neuroca_backup.stores.local import LocalStore
from neuroca_backup.stores.s3 import S3Store

if TYPE_CHECKING:
    from neuroca_backup.model.endpoint import Endpoint


def s3(object_stores: dict[str, Endpoint]) -> S3Store:
    one = object_stores["us-west-2"]
    client = boto3.client(
        "s3",
        endpoint_url=one.extra["endpoint_url"],
        region_name="us-west-2",
        aws_access_key_id=one.user,
        aws_secret_access_key=one.password,
    )
    path, bucket = uuid.uuid4().hex, one.extra["bucket"]
    return S3Store("primary", bucket=bucket, region="us-west-2", path=path, client=client)


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "s3":
        return s3(request.getfixturevalue("object_stores"))
    made = LocalStore("primary", tmp_path / "store")
    made.initialise()
    return made


def test_what_is_as_expected_is_replaced_and_what_is_not_stays(store: Any) -> None:
    assert isinstance(store, Replacing)
    with pytest.raises(NotFoundError):
        store.replace("a/keys.json", b"new", expected=b"old")
    store.put("a/keys.json", b"old")
    store.replace("a/keys.json", b"new", expected=b"old")
    assert store.get("a/keys.json") == b"new"
    for expected in (b"old", b"ne", b"newer"):
        with pytest.raises(StoreUnavailableError, match="changed by somebody else"):
            store.replace("a/keys.json", b"other", expected=expected)
    assert store.get("a/keys.json") == b"new"
    store.replace("a/keys.json", b"new", expected=b"old")  # repeated, it is done already


def test_between_looking_and_writing_nobody_is_overwritten(
    object_stores: dict[str, Endpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = s3(object_stores)
    store.put("k", b"old")
    from neuroca_backup.stores import s3 as module  # noqa: PLC0415 - only here

    real = module.put_whole

    def late(target: Any, data: bytes, **more: Any) -> Any:
        if more:
            monkeypatch.setattr(module, "put_whole", real)
            store.put("k", b"theirs")
        return real(target, data, **more)

    monkeypatch.setattr(module, "put_whole", late)
    with pytest.raises(StoreUnavailableError, match="changed by somebody else"):
        store.replace("k", b"ours", expected=b"old")
    assert store.get("k") == b"theirs"


def test_of_many_at_once_one_replaces_it(tmp_path: Path) -> None:
    store = LocalStore("primary", tmp_path / "store")
    store.initialise()
    store.put("k", b"old")

    def one(number: int) -> bool:
        try:
            store.replace("k", b"new %d" % number, expected=b"old")
        except BackupError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(one, range(8))) == 1


def test_versions_are_listed_also_of_what_was_deleted_and_go_one_by_one(
    object_stores: dict[str, Endpoint],
) -> None:
    store: Any = s3(object_stores)
    assert isinstance(store, Versioning)
    for data in (b"1", b"2"):
        store.put("folder/a", data)
    store.put("folder/b", b"x")
    store.put("folder2/a", b"y")
    store._client.delete_object(Bucket=store._bucket, Key=store._root + "folder/b")
    found = list(store.versions("folder"))
    assert sorted((one.key, one.current) for one in found) == [
        ("folder/a", False),
        ("folder/a", True),
        ("folder/b", False),
    ]
    store.delete_version(next(one for one in found if one.key == "folder/a" and not one.current))
    assert store.get("folder/a") == b"2"
    assert len(list(store.versions("folder"))) == 2


def test_a_store_without_versions_does_not_pretend(tmp_path: Path) -> None:
    store: Store = LocalStore("primary", tmp_path / "store")
    assert not isinstance(store, Versioning)
