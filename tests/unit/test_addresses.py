"""Which backup an address names."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from neuroca_backup.errors import ConfigurationError
from neuroca_backup.model.identity import BackupRef, Component
from neuroca_backup.services.addresses import resolve
from neuroca_backup.stores.local import LocalStore

REF = BackupRef("20261123T020000Z-1f0c9a3e-postgres", Component.DATABASE)


def place(location: str) -> Any:
    """Return what `resolve` looks at of a store."""
    return SimpleNamespace(location=location)


S3 = {
    "primary": place("s3://neuroca-backups/nca"),
    "secondary": place("s3://neuroca-backups-replica"),
}


@pytest.mark.parametrize(
    ("uri", "store"),
    [
        (f"s3://neuroca-backups/nca/{REF.prefix}", "primary"),
        (f"s3://neuroca-backups/nca/{REF.prefix}/", "primary"),
        (f"s3://neuroca-backups/nca/{REF.manifest_key}", "primary"),
        (f"s3://neuroca-backups/nca/{REF.member_key('ab12cd34', 'globals.sql')}", "primary"),
        (f"s3://neuroca-backups-replica/{REF.keys_key('ab12cd34')}", "secondary"),
    ],
)
def test_a_folder_a_manifest_and_a_member_name_the_backup_and_its_store(
    uri: str, store: str
) -> None:
    assert resolve(S3, uri) == (store, REF)


def test_a_directory_is_named_by_its_path_its_uri_escaped_and_through_a_link(
    tmp_path: Path,
) -> None:
    root = tmp_path / "nas of nca"
    root.mkdir()
    (tmp_path / "link").symlink_to(root)
    stores = {"primary": LocalStore("primary", root)}
    for uri in (
        f"{root}/{REF.prefix}",
        f"{root}/./{REF.prefix}//",
        f"file://{root}/{REF.manifest_key}",
        f"file://localhost{root}/{REF.manifest_key}",
        f"file://{str(root).replace(' ', '%20')}/{REF.prefix}",
        f"{tmp_path}/link/{REF.prefix}",
    ):
        assert resolve(stores, uri) == ("primary", REF)
    linked = {"primary": LocalStore("primary", tmp_path / "link")}
    assert resolve(linked, f"{root}/{REF.prefix}") == ("primary", REF)


def test_of_a_store_within_another_one_the_inner_is_meant() -> None:
    stores = {"outer": place("s3://b"), "inner": place("s3://b/database/postgres")}
    assert resolve({"outer": place("s3://b")}, f"s3://b/{REF.prefix}") == ("outer", REF)
    uri = f"s3://b/database/postgres/{REF.prefix}"
    assert resolve(stores, uri) == ("inner", REF)


@pytest.mark.parametrize(
    "uri",
    [
        f"s3://neuroca-backups/{REF.prefix}",
        f"s3://neuroca-backups/nca2/{REF.prefix}",
        f"s3://elsewhere/nca/{REF.prefix}",
        f"/srv/nas/{REF.prefix}",
    ],
)
def test_an_address_in_no_configured_store_lists_those_there_are(uri: str) -> None:
    with pytest.raises(ConfigurationError, match="in no store of") as caught:
        resolve(S3, uri)
    assert uri in str(caught.value)
    assert "secondary (s3://neuroca-backups-replica)" in caught.value.remedy


@pytest.mark.parametrize(
    "rest",
    [
        "",
        "/database",
        "/database/postgres",
        "/database/neuroca_db_20261123.dump.gz",
        f"/database/mongodb/{REF.backup_id}",
        f"/tables/postgres/{REF.backup_id}",
        "/sets/database/20261123T020000Z-1f0c9a3e.json",
        f"/database/postgres/{REF.backup_id}x!/manifest.json",
    ],
)
def test_an_address_in_a_store_that_is_of_no_backup_is_refused(rest: str) -> None:
    with pytest.raises(ConfigurationError, match="is in store primary, but belongs to no backup"):
        resolve(S3, f"s3://neuroca-backups/nca{rest}")


@pytest.mark.parametrize(
    "uri", ["", REF.backup_id, REF.prefix, "https://console.aws.amazon.com/x", "file://nas/x"]
)
def test_what_is_no_address_is_told_how_one_looks(uri: str) -> None:
    with pytest.raises(ConfigurationError, match="is not the address of a backup"):
        resolve(S3, uri)


def test_a_path_that_leaves_the_store_is_not_in_it(tmp_path: Path) -> None:
    stores = {"primary": LocalStore("primary", tmp_path / "nas")}
    with pytest.raises(ConfigurationError, match="in no store"):
        resolve(stores, f"{tmp_path}/nas/../other/{REF.prefix}")


def test_a_password_in_an_address_is_refused_and_never_repeated() -> None:
    with pytest.raises(ConfigurationError, match="names a user") as caught:
        resolve(S3, f"s3://AKIA:s3cr3t@neuroca-backups/nca/{REF.prefix}")
    assert "s3cr3t" not in repr((str(caught.value), caught.value.facts))
