"""What the stores hold, found without a catalog, and with one store gone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from neuroca_backup.errors import NotFoundError, StoreUnavailableError
from neuroca_backup.model import document
from neuroca_backup.model.identity import BackupRef, Component, set_id
from neuroca_backup.model.manifest import Dump, Manifest, SealedManifest
from neuroca_backup.model.status import Finding, Level, Verification
from neuroca_backup.services.inventory import CLOCK_TOLERANCE, Inventory
from neuroca_backup.stores.local import LocalStore
from support.moments import MOMENT

NOW = datetime.now(UTC)


@pytest.fixture
def stores(tmp_path: Path) -> dict[str, LocalStore]:
    found = {name: LocalStore(name, tmp_path / name) for name in ("primary", "secondary")}
    for store in found.values():
        store.initialise()
    return found


class Gone:
    """A store of a region that does not answer."""

    name = "primary"

    def __getattr__(self, name: str) -> Any:
        raise StoreUnavailableError("primary does not answer", remedy="Wait.")


def put(
    store: LocalStore,
    *,
    age: timedelta,
    sound: bool | None = True,
    started: timedelta | None = None,
) -> BackupRef:
    """Store a manifest `age` old; verified as sound, as damaged, or (None) not verified."""
    at = NOW - age
    of = set_id(at=at, run=str(at))
    ref = BackupRef.of(of, Component.DATABASE, "postgres")
    manifest = Manifest(
        backup_id=ref.backup_id,
        set_id=of,
        component=ref.component,
        source=ref.source,
        engine="postgresql",
        attempt="a1b2c3d4",
        stages=(),
        dump=Dump(server_version="18.6", consistency=MOMENT, facts={}),
        members=(),
        started_at=NOW - (age if started is None else started),
        finished_at=at,
        product="test",
    )
    store.put(ref.manifest_key, SealedManifest.seal(manifest, lambda _: "").encode())
    if sound is not None:
        findings = () if sound else (Finding(key="k", problem="p"),)
        verification = Verification(
            backup_id=ref.backup_id,
            store=store.name,
            level=Level.PARSED,
            findings=findings,
            checked_at=at,
            seconds=1,
            bytes_read=1,
        )
        store.put(ref.verification_key, document.encode(verification.model_dump(mode="json")))
    return ref


def find(stores: Any, **words: Any) -> BackupRef:
    return Inventory(stores).find("postgres", component=Component.DATABASE, **words).ref


def hours(count: float) -> timedelta:
    return timedelta(hours=count)


def test_the_newest_verified_backup_is_found(stores: dict[str, LocalStore]) -> None:
    put(stores["primary"], age=hours(3))
    wanted = put(stores["primary"], age=hours(2))
    put(stores["primary"], age=hours(1), sound=False)
    put(stores["primary"], age=hours(0.5), sound=None)
    assert find(stores) == wanted


def test_a_time_chooses_the_newest_that_began_before_it(stores: dict[str, LocalStore]) -> None:
    wanted = put(stores["secondary"], age=hours(3))
    put(stores["primary"], age=hours(1))
    assert find(stores, before=NOW - hours(2)) == wanted


def test_what_is_not_verified_is_found_by_its_id_alone(stores: dict[str, LocalStore]) -> None:
    ref = put(stores["primary"], age=hours(1), sound=None)
    with pytest.raises(NotFoundError, match=r"no verified backup of postgres \(1 unverified\)"):
        find(stores)
    assert find(stores, backup_id=ref.backup_id) == ref


def test_a_verification_without_a_manifest_is_no_backup(stores: dict[str, LocalStore]) -> None:
    ref = put(stores["primary"], age=hours(1))
    stores["primary"].delete(ref.manifest_key)
    assert list(Inventory(stores).newest_first(Component.DATABASE, "postgres")) == []


def test_a_backup_with_damaged_manifests_is_listed_with_its_problem(
    stores: dict[str, LocalStore],
) -> None:
    ref = put(stores["primary"], age=hours(1))
    stores["primary"].put(ref.manifest_key, b"{")
    (listed,) = Inventory(stores).newest_first(Component.DATABASE, "postgres")
    assert listed.manifest is None
    assert "manifest.json" in listed.problems["primary"]
    with pytest.raises(NotFoundError, match="not the document"):
        find(stores, backup_id=ref.backup_id)


def test_a_lost_store_is_left_out_and_named(stores: dict[str, LocalStore]) -> None:
    ref = put(stores["secondary"], age=hours(1))
    inventory = Inventory({"primary": Gone(), "secondary": stores["secondary"]})  # type: ignore[dict-item]
    found = inventory.find("postgres", component=Component.DATABASE)
    assert found.ref == ref
    assert "does not answer" in inventory.unreachable["primary"]


def test_when_no_store_answers_that_is_the_error() -> None:
    with pytest.raises(StoreUnavailableError, match="No store answers"):
        find({"primary": Gone()})


@pytest.mark.parametrize("ahead", [-hours(24 * 365), -CLOCK_TOLERANCE - timedelta(hours=1)])
def test_a_backup_from_the_future_is_passed_over_while_there_is_another(
    stores: dict[str, LocalStore], ahead: timedelta
) -> None:
    future = put(stores["primary"], age=ahead)
    assert find(stores) == future
    wanted = put(stores["primary"], age=hours(1))
    assert find(stores) == wanted
    assert find(stores, backup_id=future.backup_id) == future


def test_a_start_in_the_future_counts_like_an_id_in_the_future(
    stores: dict[str, LocalStore],
) -> None:
    put(stores["primary"], age=hours(1), started=-hours(5))
    wanted = put(stores["primary"], age=hours(2))
    assert find(stores) == wanted


def test_clocks_that_are_a_little_apart_change_nothing(stores: dict[str, LocalStore]) -> None:
    put(stores["primary"], age=hours(1))
    wanted = put(stores["primary"], age=-CLOCK_TOLERANCE / 2)
    assert find(stores) == wanted


def test_every_component_and_source_with_a_backup_is_told(stores: dict[str, LocalStore]) -> None:
    put(stores["secondary"], age=hours(1))
    assert list(Inventory(stores).sources()) == [(Component.DATABASE, "postgres")]
