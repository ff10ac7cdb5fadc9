"""The documents of a store: found when changed, and readable for as long as there are stores."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuroca_backup.errors import DamagedError
from neuroca_backup.keyring.keys_document import Keyring, KeysDocument
from neuroca_backup.keyring.local import LocalKeyFile
from neuroca_backup.model import document
from neuroca_backup.model.identity import BackupRef, Component
from neuroca_backup.model.manifest import Manifest, SealedManifest
from neuroca_backup.model.status import Level, Verification

GOLDEN = Path(__file__).with_name("golden") / "version_1"
REF = BackupRef(backup_id="20261123T020000Z-1f0c9a3e-postgres", component=Component.DATABASE)

bodies = st.dictionaries(
    st.text(),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    ),
)


@given(bodies)
def test_a_document_gives_back_its_body(body: dict[str, Any]) -> None:
    assert document.decode(document.encode(body), name="x") == body


@given(bodies)
def test_the_same_body_is_the_same_bytes_whatever_the_order_of_its_keys(
    body: dict[str, Any],
) -> None:
    assert document.encode(dict(reversed(body.items()))) == document.encode(body)


def test_every_flipped_bit_of_a_document_is_found() -> None:
    whole = document.encode({"name": 'ünïcode \\ " \n', "size": 17, "list": [1, None, True]})
    for position in range(len(whole)):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << bit
            with pytest.raises(DamagedError, match=r"primary:x\.json"):
                document.decode(bytes(damaged), name="primary:x.json")


@pytest.mark.parametrize("count", [1, 2, 10])
def test_every_cut_or_lengthened_document_is_found(count: int) -> None:
    whole = document.encode({"a": 1})
    for data in (whole[:-count], whole[count:], whole + b" " * count, b" " * count + whole, b""):
        with pytest.raises(DamagedError):
            document.decode(data, name="x")


@pytest.mark.parametrize(
    "data",
    [b"null", b"[]", b"{}", b'{"body":1,"sha256":""}', b"\xff\xfe", b"[" * 100_000, b"1e999"],
)
def test_what_was_never_a_document_is_damage(data: bytes) -> None:
    with pytest.raises(DamagedError, match="x is not the document"):
        document.decode(data, name="x")


def test_a_manifest_of_version_1_stays_readable_and_its_mac_verifies() -> None:
    sealed = SealedManifest.decode(
        (GOLDEN / "manifest.json").read_bytes(), name="manifest.json", ref=REF
    )
    manifest = sealed.manifest
    assert manifest.version == 1
    assert manifest.members[0].name == "globals.sql"
    assert manifest.dump.facts["databases"]["neuroca"]["tables"]["memory.items"]["rows"] == 200
    assert manifest.started_at == datetime(2026, 11, 23, 2, 0, 1, tzinfo=UTC)
    (GOLDEN / "local.key").chmod(0o600)  # git does not keep it
    keyset = Keyring([LocalKeyFile(GOLDEN / "local.key")]).unwrap(
        KeysDocument.decode((GOLDEN / "keys.json").read_bytes(), name="keys.json"),
        backup_id=REF.backup_id,
        name="keys.json",
    )
    assert keyset.verify_mac(sealed.covered, sealed.mac)
    assert not keyset.verify_mac(sealed.covered + b" ", sealed.mac)


def test_a_manifest_is_written_again_as_it_was_read() -> None:
    data = (GOLDEN / "manifest.json").read_bytes()
    assert SealedManifest.decode(data, name="x").encode() == data


def test_a_verification_of_version_1_stays_readable() -> None:
    body = document.decode((GOLDEN / "verification.json").read_bytes(), name="verification.json")
    found = Verification.model_validate(body)
    assert (found.store, found.level, found.sound) == ("secondary", Level.PARSED, True)


def _changed(change: dict[str, Any]) -> bytes:
    body = json.loads((GOLDEN / "manifest.json").read_bytes())["body"]
    body["manifest"] |= change
    return document.encode(body)


def origin(**change: Any) -> dict[str, Any]:
    """A change of the manifest: its only member lies where this says."""
    digest = {"size": 1, "sha256": "0" * 64}
    there = {"backup_id": "20261122T020000Z-0a0b0c0d-postgres", "attempt": "a1", "stages": ["zstd"]}
    member = {"name": "m", "plain": digest, "stored": digest}
    return {"members": [member | {"origin": there | {"name": "old/m"} | change}]}


def test_a_member_with_an_origin_lies_under_the_earlier_backup_and_counts_as_no_bytes_of_this() -> (
    None
):
    sealed = SealedManifest.decode(_changed(origin()), name="manifest.json", ref=REF)
    manifest = sealed.manifest
    (member,) = manifest.members
    home = "database/postgres/20261122T020000Z-0a0b0c0d-postgres/a1"
    assert manifest.key_of(member) == f"{home}/members/old/m"
    assert manifest.keys_of(member) == f"{home}/keys.json"
    assert manifest.origin_of(member).stages == ("zstd",)
    assert (manifest.own, manifest.own_size, manifest.stored_size) == ((), 0, 1)
    assert sealed.encode() == _changed(origin()).replace(
        json.loads(_changed(origin()))["sha256"].encode(),
        json.loads(sealed.encode())["sha256"].encode(),
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 2}, "of version 2; this program reads 1"),
        ({"version": None}, "of version None"),
        ({"attempt": 5}, "not a valid manifest.*attempt"),
        ({"members": [{"name": "x"}]}, "not a valid manifest.*plain"),
        ({"surprise": 1}, "not a valid manifest.*surprise"),
        (origin(backup_id="20261123T020000Z-1f0c9a3e-postgres"), "no earlier backup of postgres"),
        (origin(backup_id="20261122T020000Z-1f0c9a3e-mongodb"), "no earlier backup of postgres"),
        (origin(backup_id="latest"), "'latest' is not a backup id"),
        (origin(surprise=1), "not a valid manifest.*surprise"),
        ({"started_at": "2026-11-23T02:00:01"}, "not a valid manifest.*started_at"),
        ({"backup_id": "20261123T020000Z-1f0c9a3e-mongodb"}, "manifest of another backup"),
    ],
)
def test_a_manifest_that_says_what_it_must_not_is_damage(
    change: dict[str, Any], words: str
) -> None:
    with pytest.raises(DamagedError, match=words):
        SealedManifest.decode(_changed(change), name="manifest.json", ref=REF)


def test_sizes_are_sums_over_the_members() -> None:
    manifest: Manifest = SealedManifest.decode(
        (GOLDEN / "manifest.json").read_bytes(), name="x"
    ).manifest
    assert manifest.plain_size == sum(member.plain.size for member in manifest.members) > 0
    assert manifest.stored_size == sum(member.stored.size for member in manifest.members) > 0
    assert manifest.key_of(manifest.members[0]) == (
        f"database/postgres/{REF.backup_id}/{manifest.attempt}/members/globals.sql"
    )
