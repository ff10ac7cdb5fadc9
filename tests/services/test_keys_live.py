"""Keys on real buckets with versions and on real KMS: rotated, and destroyed for good."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from neuroca_backup import sandbox
from neuroca_backup.catalog.memory import MemoryCatalog
from neuroca_backup.connections import FileConnections
from neuroca_backup.engines import RestoreTarget
from neuroca_backup.errors import KeyUnavailableError, NotFoundError
from neuroca_backup.keyring.keys_document import Keyring
from neuroca_backup.keyring.local import LocalKeyFile
from neuroca_backup.keyring.recovery import RecoveryPrivateKey, generate_recovery_pair
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.identity import BackupRef, Component, set_id
from neuroca_backup.model.status import Level
from neuroca_backup.runtime import Runtime
from neuroca_backup.services import audit_check
from neuroca_backup.services.fetch import authenticate
from neuroca_backup.services.inventory import read_manifest
from neuroca_backup.settings import Settings
from support import model_files
from support.wiring import Places, connection, region_places

if TYPE_CHECKING:
    from collections.abc import Iterator

BOTH = ("primary", "secondary")
LARGE = 16 * 1024
SOURCE = (Component.MODEL_WEIGHTS, "models__llama")


class Killed(BaseException):
    """The process was killed."""


class Bench:
    """One model in two buckets that keep versions; the keys are what a test says."""

    def __init__(self, root: Path, places: Places) -> None:
        self.root, self.places = root, places
        self.restored = count()
        self.home = root / "models" / "llama"
        self.home.mkdir(parents=True)
        for shard in ("one", "two"):
            self.write(shard, shard.encode())

    def write(self, shard: str, weight: bytes) -> None:
        data = model_files.safetensors(weight=weight * LARGE)
        (self.home / f"{shard}.safetensors").write_bytes(data)

    def runtime(self, encryption: dict[str, Any], **more: Any) -> Runtime:
        settings = Settings.model_validate(
            {
                "schedule": {"model_weights": "0 4 * * 0"},
                "storage": self.places.storage,
                "retention": {},
                "encryption": encryption,
                "pipeline": {"spool": str(self.root / "spool"), "mode": "streamed"},
                "sources": {
                    "models": {
                        "component": "model_weights",
                        "engine": "model_weights",
                        "options": {"roots": [str(self.root / "models")]},
                    }
                },
                **more,
            }
        )
        built = Runtime.build(settings, FileConnections(environ=self.places.environ), actor="ann")
        built.__dict__["catalog"] = MemoryCatalog()
        return built

    def back_up(self, runtime: Runtime, *, age: timedelta) -> BackupRef:
        ref = runtime.ref(set_id(at=datetime.now(UTC) - age, run=str(age)), SOURCE[1])
        runtime.backups.run(ref, mode="streamed")
        runtime.verifier.verify(ref)
        return ref

    def restores(self, runtime: Runtime, ref: BackupRef, shard: str, weight: bytes) -> None:
        """Restore a backup, and compare one file of it."""
        place = self.root / f"restored-{next(self.restored)}"
        target = RestoreTarget(Endpoint.this_machine(place))
        plan = runtime.restores.plan(
            component=ref.component,
            source=ref.source,
            restore_id=f"restore-{place.name}",
            backup_id=ref.backup_id,
        )
        fetched = runtime.restores.fetch(plan)
        runtime.restores.load(plan, fetched, target)
        runtime.restores.compare(plan, target)
        runtime.restores.publish(plan, fetched, target)
        runtime.restores.clear(plan.restore_id)
        found = (place / "llama" / f"{shard}.safetensors").read_bytes()
        assert found == model_files.safetensors(weight=weight * LARGE)


def versions(runtime: Runtime, ref: BackupRef) -> dict[str, list[tuple[str, str]]]:
    """Return by store the key and the version of everything of a backup, old versions, too."""
    return {
        name: [(one.key, one.version) for one in runtime.stores[name].versions(ref.prefix)]  # type: ignore[attr-defined]
        for name in BOTH
    }


@pytest.fixture
def old_kms(tmp_path: Path) -> Iterator[tuple[Endpoint, Path]]:
    """A KMS that can be lost: a server of its own."""
    root = tmp_path / "old"
    try:
        yield sandbox.start(root, ["s3_us_west_2"])["s3_us_west_2"], root
    finally:
        sandbox.stop(root)


def test_after_a_rotation_every_backup_restores_without_the_old_key(
    object_stores: dict[str, Endpoint],
    old_kms: tuple[Endpoint, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("neuroca_backup.engines.model_weights.dump.LARGE_BYTES", LARGE)
    server, root = old_kms
    places = region_places(object_stores)
    places = replace(
        places, environ={**places.environ, "AIRFLOW_CONN_OLD": connection(server, "aws")}
    )
    old = server.extra["kms_key_arn"]
    bench = Bench(tmp_path, places)
    before = bench.runtime({"key_management": "kms", "kms_key_id": old, "kms_connection": "old"})
    first = bench.back_up(before, age=timedelta(days=7))
    bench.write("one", b"new")
    second = bench.back_up(before, age=timedelta())
    manifest = read_manifest(before.stores["primary"], second).manifest
    assert any(member.origin for member in manifest.members), "it refers to the first one's keys"

    # A new key, and one in a new region; the old one only opens.
    moved = {
        "previous_kms_key_ids": [old],
        "previous_kms_connection": "old",
    }
    changing = bench.runtime(dict(places.encryption), key_rotation=moved)
    found = changing.rotation.status(*SOURCE)
    assert (found.documents, found.current) == (4, 0)
    assert found.stale[0].old == (f"kms {old}",)
    assert len(found.stale[0].lacking) == 2
    assert "0 days ago" in str(found.stale[0])
    bench.restores(changing, second, "one", b"new")  # and until then it is opened
    untouched = [
        one
        for ref in (first, second)
        for one in versions(changing, ref)["primary"]
        if not one[0].endswith("keys.json")
    ]

    # Killed after one document; what is left shows in the documents.
    done = []
    primary: Any = changing.stores["primary"]
    real = primary.replace

    def dies(key: str, data: bytes, *, expected: bytes) -> None:
        real(key, data, expected=expected)
        done.append(key)
        raise Killed

    monkeypatch.setattr(primary, "replace", dies)
    with pytest.raises(Killed):
        changing.rotation.rotate(*SOURCE)
    monkeypatch.setattr(primary, "replace", real)
    assert len(done) == 1
    again = bench.runtime(dict(places.encryption), key_rotation=moved)
    rest = again.rotation.rotate(*SOURCE, purge_old=True)
    assert (rest.documents, rest.rotated, rest.purged, rest.problems) == (4, 3, 4, [])
    assert rest.clean
    assert rest.older == 0
    assert again.rotation.rotate(*SOURCE, purge_old=True).rotated == 0
    assert [
        one
        for ref in (first, second)
        for one in versions(again, ref)["primary"]
        if not one[0].endswith("keys.json")
    ] == untouched, "no other object was written"
    ages = again.rotation.ages()
    assert [(age.days, age.warning) for age in ages] == [(0, ""), (0, "")]

    sandbox.stop(root)
    after = bench.runtime(dict(places.encryption))
    for ref, weight in ((first, b"one"), (second, b"new")):
        for name in BOTH:
            assert after.verifier.check(ref, name, level=Level.PARSED).sound
        bench.restores(after, ref, "one", weight)
    with pytest.raises(KeyUnavailableError):
        authenticate(before.stores["primary"], first, before.keyring)
    assert audit_check.check(after.stores, MemoryCatalog()).findings == []


def test_after_an_erasure_no_recipient_opens_it_even_with_a_saved_copy(
    object_stores: dict[str, Endpoint], tmp_path: Path
) -> None:
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    generate_recovery_pair(private, public, b"phrase")
    local = LocalKeyFile.generate(tmp_path / "local.key")
    places = region_places(object_stores, recovery_key=public)
    bench = Bench(tmp_path, places)
    first = bench.runtime({**places.encryption, "local_key_file": str(tmp_path / "local.key")})
    ref = bench.back_up(first, age=timedelta())
    recipients = [*first.keyring._recipients, RecoveryPrivateKey(private, lambda: b"phrase")]
    kinds = {one.kind for one in recipients}
    opened = [one for one in recipients if one.kind != "recovery" or hasattr(one, "unwrap")]
    opening = [one for one in opened if "Public" not in type(one).__name__]
    assert len(opening) == 4
    assert kinds == {"kms", "local", RecoveryPrivateKey.kind}
    for one in opening:
        for name in BOTH:
            authenticate(first.stores[name], ref, Keyring([one]))
    # An older version of the keys, as every rotation leaves one behind, and one that was deleted.
    attempt = read_manifest(first.stores["primary"], ref).manifest.attempt
    key = ref.keys_key(attempt)
    west: Any = first.stores["primary"]
    west.put(key, west.get(key))
    west.put(ref.keys_key("0badcafe"), west.get(key))
    west._client.delete_object(Bucket=west._bucket, Key=west._root + ref.keys_key("0badcafe"))
    saved = {
        name: {
            one.key: first.stores[name].get(one.key)
            for one in first.stores[name].list(ref.prefix)
            if not one.key.endswith("keys.json")
        }
        for name in BOTH
    }

    certificate = first.retention.erase(ref, reason="a court order", actor="ann")

    assert certificate.completed_at is not None
    assert sorted((one.store, one.versions) for one in certificate.keys) == [
        ("primary", 1),
        ("primary", 2),
        ("secondary", 1),
    ]
    assert local.id in certificate.statement
    for name in BOTH:
        store: Any = first.stores[name]
        listed = store._client.list_object_versions(
            Bucket=store._bucket, Prefix=store._root + ref.prefix
        )
        assert "Versions" not in listed
        assert "DeleteMarkers" not in listed
        for path, data in saved[name].items():
            store.put(path, data)
        for one in opening:
            with pytest.raises((NotFoundError, KeyUnavailableError)):
                authenticate(store, ref, Keyring([one]))
    events = [(one.action, one.details["result"]) for one in first.catalog.events(limit=2)]
    assert events == [("erase", "done"), ("erase", "intended")]
