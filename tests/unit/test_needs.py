"""What others rely on, and for how long."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from neuroca_backup.model.identity import BackupRef, Component, set_id
from neuroca_backup.model.manifest import Digest, Dump, Manifest, Member, Origin
from neuroca_backup.services.needs import needed_by, objects, origins
from support.moments import MOMENT

DIGEST = Digest(size=1, sha256="0" * 64)


def ref(day: int) -> BackupRef:
    at = datetime(2026, 11, day, tzinfo=UTC)
    return BackupRef.of(set_id(at=at, run=str(day)), Component.MODEL_WEIGHTS, "models__llama")


def manifest(day: int, *, refers: Sequence[int] = (), continues: int | None = None) -> Manifest:
    """Return the backup of one day, with a member of its own and one held on each day it names."""
    this = ref(day)
    held = [
        Member(
            name=f"from-{other}",
            plain=DIGEST,
            stored=DIGEST,
            origin=Origin(
                backup_id=ref(other).backup_id, attempt=f"a{other}", name="own", stages=("zstd",)
            ),
        )
        for other in refers
    ]
    return Manifest(
        backup_id=this.backup_id,
        set_id=this.set_id,
        component=this.component,
        source=this.source,
        engine="model_weights",
        attempt=f"a{day}",
        kind="full" if continues is None else "incremental",
        parent=None if continues is None else ref(continues).backup_id,
        stages=("zstd",),
        dump=Dump(server_version="1", consistency=MOMENT, facts={}),
        members=(Member(name="own", plain=DIGEST, stored=DIGEST), *held),
        started_at=this.time,
        finished_at=this.time,
        expires_at=this.time,
        product="test",
    )


def needs_of(*manifests: Manifest) -> dict[int, set[int]]:
    """Return `needed_by` by days."""
    days = {ref(day).backup_id: day for day in range(1, 29)}
    return {days[one]: {days[other] for other in by} for one, by in needed_by(manifests).items()}


def test_a_backup_is_needed_by_every_one_that_refers_to_it() -> None:
    assert origins(manifest(3, refers=[1, 2])) == {ref(1).backup_id, ref(2).backup_id}
    assert needs_of(
        manifest(1), manifest(2), manifest(3, refers=[1]), manifest(4, refers=[1, 3])
    ) == {
        1: {3, 4},
        3: {4},
    }


def test_what_nobody_refers_to_is_not_needed() -> None:
    assert needs_of(manifest(1), manifest(2), manifest(3)) == {}


def test_the_end_of_a_chain_needs_its_beginning() -> None:
    chain = [manifest(1), manifest(2, continues=1), manifest(3, continues=2)]
    assert needs_of(*chain) == {1: {2, 3}, 2: {3}}
    # Of which the middle has not been read, the end still needs the middle.
    assert needs_of(chain[0], chain[2]) == {2: {3}}


def test_a_backup_whose_own_manifest_is_gone_is_needed_all_the_same() -> None:
    assert needs_of(manifest(4, refers=[1])) == {1: {4}}


def test_the_objects_of_a_backup_are_its_own_and_those_it_refers_to_with_their_keys() -> None:
    this, other = ref(3), ref(1)
    assert set(objects(manifest(3, refers=[1]))) == {
        this.manifest_key,
        this.keys_key("a3"),
        this.member_key("a3", "own"),
        other.keys_key("a1"),
        other.member_key("a1", "own"),
    }
