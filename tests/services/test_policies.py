"""Each role does its work with the policy that is generated for it, and is refused all else.

The emulator enforces users' policies: actions, resources of S3, allow and deny. Conditions, bucket
policies and key policies it does not; tests/unit/test_policies.py looks at those documents.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from neuroca_backup import sandbox
from neuroca_backup.engines import RestoreTarget
from neuroca_backup.errors import AccessDeniedError, KeyUnavailableError
from neuroca_backup.model import erasure
from neuroca_backup.model.identity import BackupRef, Component, set_id
from neuroca_backup.model.status import Level
from neuroca_backup.services import targets
from neuroca_backup.services.inventory import Inventory, read_keys, read_manifest
from neuroca_backup.services.policies import identity
from neuroca_backup.services.retention.applying import Retention
from neuroca_backup.services.retention.planning import Rules
from neuroca_backup.settings import Role
from support.guarded import ADMINISTRATOR, Guarded, client, for_emulator

if TYPE_CHECKING:
    from neuroca_backup.runtime import Runtime
    from neuroca_backup.settings import Settings

SECRET = "API_TOKEN=correct-horse\n"
SUSPENDED = {"Status": "Suspended"}


class Stand:
    """The regions, a user for each role, and what has been backed up."""

    def __init__(self, guarded: Guarded) -> None:
        self.guarded = guarded
        self.settings: Settings = guarded.settings()
        self.users = guarded.users(self.settings)
        self._runs = itertools.count()
        self._runtimes: dict[str, Runtime] = {}

    def as_(self, role: Role | str) -> Runtime:
        if str(role) not in self._runtimes:
            runtime = self.guarded.runtime(self.users[str(role)], self.settings)
            self._runtimes[str(role)] = runtime
        return self._runtimes[str(role)]

    def client(self, role: Role | str, service: str, region: str = "us-west-2") -> Any:
        return client(self.users[str(role)][region], service)

    def ref(self, source: str, *, age: timedelta = timedelta()) -> BackupRef:
        at = datetime.now(UTC) - age
        return self.as_(Role.WRITER).ref(set_id(at=at, run=f"run {next(self._runs)}"), source)

    def back_up(self, source: str, *, age: timedelta = timedelta()) -> BackupRef:
        """Make a backup as Airflow does with a worker for each role."""
        ref = self.ref(source, age=age)
        writer = self.as_(Role.WRITER).backups
        try:
            writer.upload(writer.encrypt(writer.compress(writer.dump(ref))))
        finally:
            writer.clear(ref)
        self.as_(Role.REPLICATOR).backups.replicate(ref)
        self.as_(Role.VERIFIER).verifier.verify(ref)
        self.as_(Role.VERIFIER).sets().record(
            ref.set_id, ref.component, sources=(source,), unchanged={}, whole=()
        )
        return ref


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "etc").mkdir()
    (folder / "etc" / "app.env").write_text(SECRET)
    (folder / "log").mkdir()
    (folder / "log" / "app.log").write_text("2026-11-25T00:00:00Z started\n" * 50)
    try:
        yield Guarded.start(folder)
    finally:
        sandbox.stop(folder / "sandbox")


@pytest.fixture(scope="module")
def stand(guarded: Guarded) -> Stand:
    made = Stand(guarded)
    guarded.enforce()
    return made


@pytest.fixture(scope="module")
def ref(stand: Stand) -> BackupRef:
    return stand.back_up("configuration")


@pytest.fixture(scope="module")
def logs(stand: Stand) -> tuple[BackupRef, BackupRef]:
    """Two backups of a source whose backups continue each other, made by a writer that may not."""
    first = stand.back_up("logs", age=timedelta(minutes=2))
    return first, stand.back_up("logs", age=timedelta(minutes=1))


def keys_of(stand: Stand, ref: BackupRef) -> list[str]:
    """Return the key of every object of a backup in the primary."""
    store = stand.as_(ADMINISTRATOR).stores["primary"]
    return [found.key for found in store.list(ref.prefix)]


def test_the_roles_of_a_backup_make_one_together_that_is_verified_on_both_stores(
    stand: Stand, ref: BackupRef
) -> None:
    found = Inventory(stand.as_(Role.AUDITOR).stores).look(ref)

    assert set(found.manifests) == {"primary", "secondary"}
    assert found.verifications["secondary"].level is Level.PARSED
    assert found.problems == {}


def test_the_writer_alone_can_neither_read_nor_delete_an_existing_backup(
    stand: Stand, ref: BackupRef
) -> None:
    before = keys_of(stand, ref)
    manifest = read_manifest(stand.as_(Role.VERIFIER).stores["primary"], ref).manifest
    wrapped = read_keys(stand.as_(Role.VERIFIER).stores["primary"], manifest)
    writer = stand.as_(Role.WRITER)
    data = [manifest.key_of(one) for one in manifest.members] + [ref.keys_key(manifest.attempt)]
    for store in writer.stores.values():
        for key in data:
            with pytest.raises(AccessDeniedError):
                store.get(key)
        for key in before:
            with pytest.raises(AccessDeniedError):
                store.delete(key)
    with pytest.raises(KeyUnavailableError, match="kms:Decrypt"):
        writer.keyring.unwrap(wrapped, backup_id=ref.backup_id, name="keys.json")
    for region, store_name in (("us-west-2", "primary"), ("eu-central-1", "secondary")):
        plain = stand.client(Role.WRITER, "s3", region)
        versions = stand.client(ADMINISTRATOR, "s3", region)
        bucket = stand.guarded.storage[store_name]["bucket"]
        for key in before:
            place = {"Bucket": bucket, "Key": f"nca/{key}"}
            (version,) = versions.list_object_versions(Bucket=bucket, Prefix=place["Key"])[
                "Versions"
            ]
            refused(plain.delete_object, **place)
            refused(plain.delete_object, **place, VersionId=version["VersionId"])
            refused(plain.get_object, **place, VersionId=version["VersionId"])
        refused(plain.put_bucket_versioning, Bucket=bucket, VersioningConfiguration=SUSPENDED)
    assert keys_of(stand, ref) == before
    stand.as_(Role.VERIFIER).verifier.verify(ref)


def refused(call: Callable[..., Any], **arguments: Any) -> None:
    from botocore.exceptions import ClientError  # noqa: PLC0415 - slow to import

    with pytest.raises(ClientError) as caught:
        call(**arguments)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


def test_the_writer_can_neither_expire_a_backup_nor_write_to_the_other_region(
    stand: Stand, ref: BackupRef
) -> None:
    writer = stand.as_(Role.WRITER).stores
    marks = [ref.tombstone_key, ref.hold_key, ref.verification_key, "sets/configuration/x.json"]
    for key in marks:
        with pytest.raises(AccessDeniedError):
            writer["primary"].put(key, b"{}")
    with pytest.raises(AccessDeniedError):
        writer["secondary"].put(ref.manifest_key, b"{}")


def test_the_writer_sees_that_nothing_has_changed_and_says_so_on_both_stores(
    stand: Stand, ref: BackupRef
) -> None:
    ticket = stand.as_(Role.WRITER).backups.dump(stand.ref("configuration"))

    assert ticket.unchanged
    assert ticket.backup_id == ref.backup_id
    assert set(Inventory(stand.as_(Role.AUDITOR).stores).look(ref).checks) == {
        "primary",
        "secondary",
    }


def test_without_the_right_to_read_every_backup_is_full_and_says_why(
    stand: Stand, logs: tuple[BackupRef, BackupRef]
) -> None:
    manifest = read_manifest(stand.as_(Role.AUDITOR).stores["primary"], logs[1]).manifest

    assert manifest.kind == "full"
    assert any("these credentials may not open" in note for note in manifest.dump.notes)


def test_with_access_incremental_the_writer_continues_backups_and_still_reads_no_data(
    stand: Stand, logs: tuple[BackupRef, BackupRef]
) -> None:
    give_policy(stand, Role.WRITER, stand.guarded.settings(incremental=True))
    try:
        with (stand.guarded.folder / "log" / "app.log").open("a") as log:
            log.write("2026-11-25T00:01:00Z more\n")
        second = stand.back_up("logs")
        stores = stand.as_(Role.WRITER).stores
        with pytest.raises(AccessDeniedError):
            stores["primary"].delete(logs[0].manifest_key)
        manifest = read_manifest(stores["primary"], second).manifest
        pieces = [one for one in manifest.members if one.name != "state.jsonl"]
        assert manifest.kind == "incremental"
        assert pieces
        for one in pieces:
            with pytest.raises(AccessDeniedError):
                stores["primary"].get(manifest.key_of(one))
    finally:
        give_policy(stand, Role.WRITER, stand.settings)


def give_policy(stand: Stand, role: Role, settings: Settings) -> None:
    """Give the user of `role` the policy that `settings` ask for."""
    policy = json.dumps(for_emulator(identity.policy(role, settings)))
    for region in stand.users[str(role)]:
        stand.client(ADMINISTRATOR, "iam", region).put_user_policy(
            UserName=str(role), PolicyName="role", PolicyDocument=policy
        )


def test_the_replicator_copies_what_it_cannot_open(stand: Stand, ref: BackupRef) -> None:
    replicator = stand.as_(Role.REPLICATOR)
    manifest = read_manifest(replicator.stores["primary"], ref).manifest
    wrapped = read_keys(replicator.stores["primary"], manifest)

    with pytest.raises(KeyUnavailableError):
        replicator.keyring.unwrap(wrapped, backup_id=ref.backup_id, name="keys.json")
    with pytest.raises(AccessDeniedError):
        replicator.stores["secondary"].delete(ref.manifest_key)
    with pytest.raises(AccessDeniedError):
        replicator.stores["primary"].put(ref.manifest_key, b"{}")


def test_the_verifier_reads_everything_and_changes_nothing(stand: Stand, ref: BackupRef) -> None:
    verifier = stand.as_(Role.VERIFIER)
    manifest = read_manifest(verifier.stores["primary"], ref).manifest

    for key in keys_of(stand, ref):
        with pytest.raises(AccessDeniedError):
            verifier.stores["primary"].delete(key)
    for key in (ref.manifest_key, manifest.key_of(manifest.members[0]), ref.tombstone_key):
        with pytest.raises(AccessDeniedError):
            verifier.stores["primary"].put(key, b"{}")
    # The emulator's refusal has a code of its own.
    with pytest.raises((AccessDeniedError, KeyUnavailableError), match="kms:Encrypt"):
        verifier.backups.dump(stand.ref("logs"))


def test_the_restorer_restores_and_deletes_nothing(
    stand: Stand, ref: BackupRef, tmp_path: Path
) -> None:
    restores = stand.as_(Role.RESTORER).restores
    target = RestoreTarget(targets.directory(tmp_path / "restored", "filetree"))
    plan = restores.plan(
        component=Component.CONFIGURATION,
        source="configuration",
        restore_id="restore-1",
        backup_id=ref.backup_id,
    )
    try:
        restores.preflight(plan, target)
        fetched = restores.fetch(plan)
        restores.load(plan, fetched, target)
        restores.compare(plan, target)
        restores.publish(plan, fetched, target)
    finally:
        restores.clear(plan.restore_id)

    (restored,) = (tmp_path / "restored").rglob("app.env")
    assert restored.read_text() == SECRET
    for key in keys_of(stand, ref):
        with pytest.raises(AccessDeniedError):
            stand.as_(Role.RESTORER).stores["primary"].delete(key)
    with pytest.raises(AccessDeniedError):
        stand.as_(Role.RESTORER).stores["primary"].put(ref.tombstone_key, b"{}")


def test_the_rotator_wraps_keys_anew_and_reads_no_data(stand: Stand, ref: BackupRef) -> None:
    rotator = stand.as_(Role.ROTATOR)
    store = rotator.stores["primary"]
    manifest = read_manifest(store, ref).manifest
    key = ref.keys_key(manifest.attempt)
    wrapped = rotator.keyring.rewrap(
        read_keys(store, manifest), backup_id=ref.backup_id, name="keys.json"
    )
    store.put(key, wrapped.encode())

    assert read_keys(store, manifest) == wrapped
    with pytest.raises(AccessDeniedError):
        store.get(manifest.key_of(manifest.members[0]))
    with pytest.raises(AccessDeniedError):
        store.delete(key)
    with pytest.raises(AccessDeniedError):
        store.put(ref.manifest_key, b"{}")
    stand.as_(Role.VERIFIER).verifier.verify(ref)


def test_the_auditor_lists_and_does_nothing_else(stand: Stand, ref: BackupRef) -> None:
    auditor = stand.as_(Role.AUDITOR)
    store = auditor.stores["secondary"]
    manifest = read_manifest(store, ref).manifest

    assert [one.set_id for one in auditor.sets().newest_first(ref.component)] == [ref.set_id]
    for key in (ref.keys_key(manifest.attempt), manifest.key_of(manifest.members[0])):
        with pytest.raises(AccessDeniedError):
            store.get(key)
    with pytest.raises(AccessDeniedError):
        store.put(ref.hold_key, b"{}")
    with pytest.raises(AccessDeniedError):
        store.delete(ref.verification_key)


def test_retention_deletes_what_has_expired_and_reads_no_data(
    stand: Stand, ref: BackupRef, logs: tuple[BackupRef, BackupRef]
) -> None:
    runtime = stand.as_(Role.RETENTION)
    manifest = read_manifest(runtime.stores["primary"], ref).manifest
    keys, member = ref.keys_key(manifest.attempt), manifest.key_of(manifest.members[0])
    for key in (keys, member):
        with pytest.raises(AccessDeniedError):
            runtime.stores["primary"].put(key, b"")
    with pytest.raises(AccessDeniedError):
        runtime.stores["primary"].get(member)
    runtime.retention.hold(ref, reason="a test", until=None, actor="test")

    for days in (200, 220):
        Retention(
            stores=runtime.stores,
            rules=Rules.of(stand.settings),
            catalog=runtime.catalog,
            workers=2,
            clock=lambda days=days: datetime.now(UTC) + timedelta(days=days),  # type: ignore[misc]
        ).apply(Component.LOGS, "logs", confirmed=True, actor="test")

    certified = runtime.stores["primary"].get(erasure.key_of(logs[0]))
    assert b"recipients" in certified
    assert keys_of(stand, logs[0]) == []
    assert keys_of(stand, logs[1]) != []
    assert keys_of(stand, ref) != []
    assert not runtime.retention.sweep(actor="test").skipped
