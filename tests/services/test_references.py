"""Members that earlier backups hold: stored once, read by all, proven in every store."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from neuroca_backup.catalog.memory import MemoryCatalog
from neuroca_backup.errors import BackupError, DamagedError, NotFoundError
from neuroca_backup.model.document import decode, encode
from neuroca_backup.model.identity import BackupRef
from neuroca_backup.model.manifest import SealedManifest
from neuroca_backup.model.status import Level
from neuroca_backup.services import needs
from neuroca_backup.services.backup import BackupType
from neuroca_backup.services.extract import extract
from neuroca_backup.services.fetch import authenticate
from neuroca_backup.services.inventory import read_manifest
from neuroca_backup.services.rebuild import rebuild
from support.reusing import Stand

BOTH = ("staged", "streamed")
LARGE = os.urandom(300_000)
MEDIUM = os.urandom(50_000)


@pytest.fixture(params=BOTH)
def stand(request: pytest.FixtureRequest, tmp_path: Path) -> Stand:
    made = Stand(tmp_path, mode=request.param)
    made.write(large=LARGE, medium=MEDIUM, note=b"first")
    return made


@pytest.fixture
def plain(tmp_path: Path) -> Stand:
    made = Stand(tmp_path)
    made.write(large=LARGE, medium=MEDIUM, note=b"first")
    return made


def two(stand: Stand) -> tuple[BackupRef, BackupRef]:
    """Make a backup, change the note, make another, which refers to the first."""
    first = stand.back_up(age=timedelta(hours=1))
    stand.write(note=b"second")
    return first, stand.back_up()


def origins(stand: Stand, ref: BackupRef) -> dict[str, str]:
    """Return by member the id of the backup that its bytes lie in, where it is another one."""
    return {
        member.name: member.origin.backup_id
        for member in stand.manifest(ref).members
        if member.origin is not None
    }


def drop_all_but(stand: Stand, keep: BackupRef) -> None:
    """Delete every object that restoring `keep` does not need, from every store."""
    needed = set(needs.objects(stand.manifest(keep)))
    for store in stand.stores.values():
        for found in list(store.list("model_weights")):
            if found.key not in needed:
                store.delete(found.key)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def test_what_has_not_changed_is_not_stored_again(stand: Stand) -> None:
    first = stand.back_up(age=timedelta(hours=1))
    stand.write(note=b"second")
    for store in stand.stores.values():
        store.written = 0
    second = stand.back_up()
    for store in stand.stores.values():
        assert 0 < store.written < 2000, store
    assert origins(stand, second) == {
        "files/large": first.backup_id,
        "files/medium": first.backup_id,
    }
    manifest = stand.manifest(second)
    assert (manifest.kind, manifest.parent) == ("full", None)
    assert manifest.plain_size > 350_000
    assert manifest.own_size < 2000
    assert manifest.stored_size > 350_000
    assert stand.restored(second) == {"large": LARGE, "medium": MEDIUM, "note": b"second"}
    assert stand.restored(first)["note"] == b"first"


def test_a_reference_leads_to_the_bytes_and_never_to_another_reference(stand: Stand) -> None:
    first, second = two(stand)
    stand.write(more=b"x" * 5000)
    third = stand.back_up()
    assert origins(stand, third) == {
        "files/large": first.backup_id,
        "files/medium": first.backup_id,
        "files/note": second.backup_id,
    }


def test_a_renamed_member_is_found_where_it_was(stand: Stand) -> None:
    first = stand.back_up(age=timedelta(hours=1))
    (stand.source / "large").rename(stand.source / "moved")
    second = stand.back_up()
    member = next(one for one in stand.manifest(second).members if one.name == "files/moved")
    assert member.origin is not None
    assert (member.origin.backup_id, member.origin.name) == (first.backup_id, "files/large")
    assert stand.restored(second) == {"moved": LARGE, "medium": MEDIUM, "note": b"first"}


def test_without_what_nobody_refers_to_the_second_backup_still_restores(stand: Stand) -> None:
    first, second = two(stand)
    drop_all_but(stand, second)
    kept = [found.key for found in stand.stores["primary"].list(first.prefix)]
    assert len(kept) == 3  # keys.json and two members
    assert stand.restored(second) == {"large": LARGE, "medium": MEDIUM, "note": b"second"}
    assert stand.verifier.verify(second)["secondary"].level is Level.PARSED
    report = rebuild(MemoryCatalog(), stand.stores)
    assert (report.complete, report.unfinished) == (True, [])
    assert report.referenced == [f"primary: {first.prefix}", f"secondary: {first.prefix}"]


def test_the_next_backup_of_one_that_lost_the_first_refers_to_what_is_left(stand: Stand) -> None:
    first, second = two(stand)
    drop_all_but(stand, second)
    stand.verifier.verify(second)
    third = stand.back_up()
    assert origins(stand, third)["files/large"] == first.backup_id
    assert stand.restored(third)["large"] == LARGE


def test_a_full_backup_that_was_asked_for_refers_to_nothing(stand: Stand) -> None:
    stand.back_up(age=timedelta(hours=1))
    again = stand.back_up(backup_type=BackupType.FULL)
    assert origins(stand, again) == {}


def test_a_parent_that_no_store_or_only_one_has_read_back_is_not_referred_to(stand: Stand) -> None:
    first = stand.back_up(age=timedelta(hours=1), verify=False)
    assert origins(stand, stand.back_up(verify=False)) == {}
    stand.verifier.check(first, "primary", level=Level.INTACT)
    assert origins(stand, stand.back_up(verify=False)) == {}
    stand.verifier.check(first, "secondary", level=Level.INTACT)
    assert set(origins(stand, stand.back_up(verify=False)).values()) == {first.backup_id}


def test_a_parent_whose_copy_is_gone_from_one_store_is_not_referred_to(stand: Stand) -> None:
    first = stand.back_up(age=timedelta(hours=1))
    stand.stores["secondary"].delete(first.manifest_key)
    assert origins(stand, stand.back_up(verify=False)) == {}


def test_members_that_are_too_old_are_stored_again(stand: Stand) -> None:
    stand.full_every = timedelta(days=30)
    first = stand.back_up(age=timedelta(days=8))
    stand.write(note=b"second")
    second = stand.back_up(age=timedelta(days=1))
    assert set(origins(stand, second).values()) == {first.backup_id}
    stand.full_every = timedelta(days=7)
    third = stand.back_up()
    assert origins(stand, third) == {"files/note": second.backup_id}


def test_the_expiry_of_the_old_backup_does_not_matter_while_it_is_needed(stand: Stand) -> None:
    first, second = two(stand)
    manifests = [stand.manifest(first), stand.manifest(second)]
    assert needs.needed_by(manifests) == {first.backup_id: {second.backup_id}}
    assert needs.needed_by(manifests[:1]) == {}


# What goes wrong in a store


def referenced(stand: Stand, ref: BackupRef) -> str:
    """Return the key of the largest member that `ref` refers to."""
    manifest = stand.manifest(ref)
    found = max(
        (one for one in manifest.members if one.origin is not None), key=lambda one: one.plain.size
    )
    return manifest.key_of(found)


def keys_of_origin(stand: Stand, ref: BackupRef) -> str:
    manifest = stand.manifest(ref)
    return next(manifest.keys_of(one) for one in manifest.members if one.origin is not None)


HARMS: dict[str, Callable[[Path], None]] = {
    "removed": lambda path: path.unlink(),
    "a bit flipped": flip,
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "emptied": lambda path: path.write_bytes(b""),
}


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("what", [referenced, keys_of_origin])
def test_harm_to_a_referenced_object_in_one_store_is_found_and_the_other_store_helps(
    plain: Stand, what: Callable[[Stand, BackupRef], str], harm: str
) -> None:
    _, second = two(plain)
    key = what(plain, second)
    for store in ("primary", "secondary"):
        path = plain.path(store, key)
        whole = path.read_bytes()
        HARMS[harm](path)
        with pytest.raises(DamagedError, match=f"{store}: {key}"):
            plain.verifier.verify(second)
        assert plain.restored(second)["large"] == LARGE
        path.write_bytes(whole)
        plain.verifier.verify(second)


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("what", [referenced, keys_of_origin])
def test_harm_in_every_store_is_an_error_and_never_a_restore(
    plain: Stand, what: Callable[[Stand, BackupRef], str], harm: str
) -> None:
    _, second = two(plain)
    for store in plain.stores:
        HARMS[harm](plain.path(store, what(plain, second)))
    with pytest.raises(DamagedError):
        plain.verifier.verify(second)
    with pytest.raises(BackupError):
        plain.restored(second)


def test_a_verification_reads_and_counts_what_it_refers_to_in_every_store(stand: Stand) -> None:
    _, second = two(stand)
    results = stand.verifier.verify(second)
    assert {name: one.level for name, one in results.items()} == {
        "primary": Level.INTACT,
        "secondary": Level.PARSED,
    }
    for one in results.values():
        assert one.bytes_read >= stand.manifest(second).stored_size > 350_000


def test_nothing_behind_a_damaged_backup_is_referred_to(stand: Stand) -> None:
    _, second = two(stand)
    flip(stand.path("secondary", referenced(stand, second)))
    with pytest.raises(DamagedError):
        stand.verifier.verify(second)
    # The record of the first one is still good, and the damage is in the objects of the first one.
    third = stand.back_up()
    assert origins(stand, third) == {}
    assert stand.restored(third)["large"] == LARGE


def test_what_the_other_store_lacks_of_earlier_backups_is_copied_with_the_new_one(
    plain: Stand,
) -> None:
    first, second = two(plain)
    third = plain.ref()
    plain.backups.upload(plain.backups.encrypt(plain.backups.compress(plain.backups.dump(third))))
    key, keys = referenced(plain, second), keys_of_origin(plain, second)
    for lost in (key, keys):
        plain.path("secondary", lost).unlink()
    plain.backups.replicate(third)
    assert set(origins(plain, third).values()) == {first.backup_id, second.backup_id}
    for store in plain.stores.values():
        store.stat(key)
        store.stat(keys)
    assert plain.verifier.verify(third)["secondary"].level is Level.PARSED


def test_no_copy_is_made_where_no_store_has_what_it_refers_to(plain: Stand) -> None:
    _, second = two(plain)
    third = plain.ref()
    plain.backups.upload(plain.backups.encrypt(plain.backups.compress(plain.backups.dump(third))))
    for store in plain.stores:
        plain.path(store, referenced(plain, second)).unlink()
    with pytest.raises(NotFoundError, match="files/large"):
        plain.backups.replicate(third)
    with pytest.raises(NotFoundError):
        plain.stores["secondary"].stat(third.manifest_key)


@pytest.mark.parametrize("what", [referenced, keys_of_origin])
def test_no_manifest_is_written_that_refers_to_what_was_deleted_meanwhile(
    plain: Stand, what: Callable[[Stand, BackupRef], str]
) -> None:
    _, second = two(plain)
    third = plain.ref()
    ticket = plain.backups.encrypt(plain.backups.compress(plain.backups.dump(third)))
    plain.path("primary", what(plain, second)).unlink()
    with pytest.raises(DamagedError, match="refers to 1 objects"):
        plain.backups.upload(ticket)
    with pytest.raises(NotFoundError):
        plain.stores["primary"].stat(third.manifest_key)


# A manifest that lies


def changed(stand: Stand, ref: BackupRef, **origin: str) -> None:
    """Rewrite the origin of the large member in both stores, as someone without the key could."""
    for store in stand.stores.values():
        body = decode(store.get(ref.manifest_key), name="manifest")
        for member in body["manifest"]["members"]:
            if member["name"] == "files/large":
                member["origin"] |= origin
        store.delete(ref.manifest_key)
        store.put(ref.manifest_key, encode(body))


def test_an_origin_that_somebody_changed_is_found_by_the_mac(plain: Stand) -> None:
    first, second = two(plain)
    changed(plain, second, name="files/medium")
    with pytest.raises(DamagedError, match="MAC"):
        plain.restored(second)
    with pytest.raises(DamagedError, match="MAC"):
        plain.verifier.verify(second)
    assert plain.restored(first)["large"] == LARGE


def test_an_origin_that_points_elsewhere_under_a_good_mac_is_found_by_the_digest(
    plain: Stand,
) -> None:
    _, second = two(plain)
    for store in plain.stores.values():
        manifest, keyset = authenticate(store, second, plain.keyring)
        members = tuple(
            one.model_copy(update={"origin": one.origin.model_copy(update={"name": "index"})})
            if one.origin is not None
            else one
            for one in manifest.members
        )
        lying = manifest.model_copy(update={"members": members})
        store.delete(second.manifest_key)
        store.put(second.manifest_key, SealedManifest.seal(lying, keyset.mac).encode())
    with pytest.raises(DamagedError, match="its size is"):
        plain.restored(second)
    with pytest.raises(DamagedError, match="its size is"):
        plain.verifier.verify(second)


@pytest.mark.parametrize(
    "backup_id",
    [
        "20000101T000000Z-1f0c9a3e-another",
        "29990101T000000Z-1f0c9a3e-shelf",
        "../../keys",
    ],
)
def test_an_origin_that_is_no_earlier_backup_of_the_source_is_no_manifest(
    plain: Stand, backup_id: str
) -> None:
    _, second = two(plain)
    changed(plain, second, backup_id=backup_id)
    with pytest.raises(DamagedError, match=r"not a valid manifest.*origin of files/large"):
        read_manifest(plain.stores["primary"], second)


def test_the_loss_of_the_primary_with_all_it_holds_leaves_the_secondary_enough(
    stand: Stand,
) -> None:
    _, second = two(stand)
    shutil.rmtree(stand.root / "primary")
    assert stand.restored(second) == {"large": LARGE, "medium": MEDIUM, "note": b"second"}
    assert set(stand.fetched.bytes_by_store) == {"secondary"}


# Interruptions


def test_a_second_attempt_at_the_same_backup_is_withdrawn_and_what_it_refers_to_stays(
    plain: Stand,
) -> None:
    first = plain.back_up(age=timedelta(hours=1))
    ref = plain.ref()
    late = plain.backups.encrypt(plain.backups.compress(plain.backups.dump(ref)))
    plain.mode = "streamed"
    other = Stand(plain.root, mode="streamed")
    other.backups.run(ref, mode="streamed")
    plain.backups.upload(late)
    plain.backups.replicate(ref)
    plain.verifier.verify(ref)
    assert set(origins(plain, ref).values()) == {first.backup_id}
    assert plain.restored(ref) == plain.restored(first)


@pytest.mark.parametrize("stage", ["dump", "compress", "encrypt", "upload", "stream", "replicate"])
def test_a_stage_that_was_killed_at_its_end_is_repeated_to_the_same_backup(
    plain: Stand, stage: str
) -> None:
    first = plain.back_up(age=timedelta(hours=1))
    plain.write(note=b"second")
    ref = plain.ref()
    ended = subprocess.run(
        [sys.executable, "-m", "support.killed_reference", str(plain.root), ref.backup_id, stage],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    plain.backups.run(ref, mode="streamed" if stage == "stream" else "staged")
    plain.verifier.verify(ref)
    assert set(origins(plain, ref).values()) == {first.backup_id}
    assert plain.restored(ref) == {"large": LARGE, "medium": MEDIUM, "note": b"second"}


def test_a_single_referenced_member_can_be_decrypted(stand: Stand, tmp_path: Path) -> None:
    _, second = two(stand)
    stand.path("primary", keys_of_origin(stand, second)).unlink()
    done = extract(
        second,
        "files/large",
        output=tmp_path / "large",
        stores=list(stand.stores.values()),
        keyring=stand.keyring,
    )
    assert (tmp_path / "large").read_bytes() == LARGE
    assert done.size == len(LARGE)


def test_a_restore_reads_only_the_objects_that_the_chosen_backup_names(plain: Stand) -> None:
    first, second = two(plain)
    home = plain.root / "primary" / first.prefix
    unreferenced = next(path for path in home.rglob("*") if path.name == "note")
    unreferenced.write_bytes(b"damaged beyond any use")
    assert plain.restored(second)["note"] == b"second"
    assert plain.fetched.fallbacks == ()
