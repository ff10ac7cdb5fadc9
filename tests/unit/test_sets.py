"""What a run's set says, in which stores it lies, and which set is restored."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from neuroca_backup.catalog.memory import MemoryCatalog
from neuroca_backup.errors import (
    BackupError,
    ConfigurationError,
    DamagedError,
    NotFoundError,
    PermanentError,
    StoreUnavailableError,
)
from neuroca_backup.model import document
from neuroca_backup.model.backup_set import BackupSet, key_of
from neuroca_backup.model.identity import BackupRef, Component, set_id
from neuroca_backup.model.manifest import Dump, Manifest, SealedManifest
from neuroca_backup.model.status import Finding, Level, Verification
from neuroca_backup.services.inventory import Inventory
from neuroca_backup.services.rebuild import rebuild
from neuroca_backup.services.sets import Sets
from neuroca_backup.stores.local import LocalStore

NOW = datetime(2026, 11, 23, 2, tzinfo=UTC)
DB = Component.DATABASE
BOTH = ("primary", "secondary")


class Shelf:
    """Two stores, filled with backups by source and run."""

    def __init__(self, root: Path) -> None:
        self.stores = {name: LocalStore(name, root / name) for name in BOTH}
        for store in self.stores.values():
            store.initialise()

    def run(self, hours: int) -> str:
        """Return the id of the set of the run `hours` after the first."""
        return set_id(at=NOW + timedelta(hours=hours), run=str(hours))

    def put(
        self,
        of: str,
        source: str,
        *,
        second: float = 0,
        sound: bool | None = True,
        **words: Any,
    ) -> None:
        """Store a backup in both stores; sound, damaged or (None) not verified."""
        ref = BackupRef.of(of, DB, source)
        at = NOW + timedelta(seconds=second)
        manifest = Manifest(
            backup_id=ref.backup_id,
            set_id=of,
            component=DB,
            source=source,
            engine="postgresql",
            attempt="a1b2c3d4",
            stages=(),
            dump=Dump(server_version="18", consistency={"time": at.isoformat()}, facts={}),
            members=(),
            started_at=at,
            finished_at=at,
            product="test",
            **words,
        )
        for name, store in self.stores.items():
            store.put(ref.manifest_key, SealedManifest.seal(manifest, lambda _: "").encode())
            if sound is not None:
                result = Verification(
                    backup_id=ref.backup_id,
                    store=name,
                    level=Level.PARSED,
                    findings=() if sound else (Finding(key="k", problem="p"),),
                    checked_at=NOW,
                    seconds=1,
                    bytes_read=1,
                )
                body = document.encode(result.model_dump(mode="json"))
                store.put(ref.verification_key, body)

    def record(self, of: str, sources: Sequence[str], **words: Any) -> BackupSet:
        return Sets(self.stores).record(of, DB, sources, **words)

    @property
    def sets(self) -> Sets:
        return Sets(self.stores)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


@pytest.fixture
def whole(shelf: Shelf) -> str:
    """The id of a complete set of two sources, 90 s apart."""
    of = shelf.run(0)
    shelf.put(of, "postgres")
    shelf.put(of, "redis", second=90)
    shelf.record(of, ["postgres", "redis"])
    return of


def test_a_set_lies_in_every_store_with_its_members_and_their_skew(
    shelf: Shelf, whole: str
) -> None:
    bodies = {store.get(key_of(DB, whole)) for store in shelf.stores.values()}
    assert len(bodies) == 1
    found = shelf.sets.find(whole, components=[DB])
    assert found.complete
    assert found.skew_seconds == 90
    assert list(found.members) == ["postgres", "redis"]
    assert found.members["redis"].backup_id == f"{whole}-redis"
    assert found.members["redis"].consistent_at == NOW + timedelta(seconds=90)


def test_recording_the_same_again_changes_no_byte(shelf: Shelf, whole: str) -> None:
    before = shelf.stores["primary"].get(key_of(DB, whole))
    shelf.record(whole, ["postgres", "redis"], clock=lambda: NOW + timedelta(days=1))
    assert shelf.stores["primary"].get(key_of(DB, whole)) == before


@pytest.mark.parametrize("sound", [None, False], ids=["never verified", "damaged"])
def test_a_source_without_a_verified_backup_makes_the_set_incomplete_and_red(
    *, shelf: Shelf, sound: bool | None
) -> None:
    of = shelf.run(0)
    shelf.put(of, "postgres")
    shelf.put(of, "redis", sound=sound)
    with pytest.raises(PermanentError, match="no verified backup of redis, vector"):
        shelf.record(of, ["postgres", "redis", "vector"])
    found = shelf.sets.find(of, components=[DB])
    assert not found.complete
    assert found.missing == ("vector",)
    assert found.unverified == ("redis", "vector")


def test_an_incomplete_set_is_completed_by_recording_it_again(shelf: Shelf) -> None:
    of = shelf.run(0)
    with pytest.raises(PermanentError):
        shelf.record(of, ["postgres"])
    assert shelf.sets.find(of, components=[DB]).skew_seconds is None
    shelf.put(of, "postgres")
    assert shelf.record(of, ["postgres"]).complete
    assert shelf.sets.find(of, components=[DB]).skew_seconds == 0


def test_a_set_of_nothing_is_not_complete(shelf: Shelf) -> None:
    with pytest.raises(PermanentError, match="any source"):
        shelf.record(shelf.run(0), [])


class Closed(LocalStore):
    """A store that takes nothing."""

    def put(self, key: str, *_: Any, **__: Any) -> None:
        raise StoreUnavailableError(f"{self.name} is closed", remedy="Wait.", key=key)


def test_a_store_that_fails_is_an_error_after_the_others_were_written(
    shelf: Shelf, tmp_path: Path
) -> None:
    of = shelf.run(0)
    shelf.put(of, "postgres")
    stores = {**shelf.stores, "primary": Closed("primary", tmp_path / "primary")}
    with pytest.raises(StoreUnavailableError, match="primary is closed"):
        Sets(stores).record(of, DB, ["postgres"])
    assert key_of(DB, of) in {one.key for one in shelf.stores["secondary"].list("sets")}


def test_of_two_stores_that_differ_the_later_record_counts(shelf: Shelf, whole: str) -> None:
    key = key_of(DB, whole)
    old = shelf.sets.find(whole, components=[DB])
    later = old.model_copy(
        update={"recorded_at": old.recorded_at + timedelta(1), "missing": ("x",)}
    )
    shelf.stores["secondary"].put(key, later.encode())
    assert shelf.sets.find(whole, components=[DB]) == later


def test_a_damaged_copy_is_named_and_the_other_one_read(shelf: Shelf, whole: str) -> None:
    shelf.stores["primary"].put(key_of(DB, whole), b"{}")
    (listed,) = shelf.sets.newest_first(DB)
    assert listed.found is not None
    assert "primary:sets/database" in listed.problems["primary"]


def test_a_set_that_is_damaged_everywhere_is_listed_and_passed_over(
    shelf: Shelf, whole: str
) -> None:
    newer = shelf.run(1)
    for store in shelf.stores.values():
        store.put(key_of(DB, newer), b"garbage")
    listed = list(shelf.sets.newest_first(DB))
    assert [one.set_id for one in listed] == [newer, whole]
    assert listed[0].found is None
    assert set(listed[0].problems) == set(BOTH)
    assert shelf.sets.newest_complete(DB, sources=["postgres"]).set_id == whole
    with pytest.raises(DamagedError, match=newer):
        shelf.sets.find(newer, components=[DB])


def test_another_set_in_its_place_is_damage(shelf: Shelf, whole: str) -> None:
    store = shelf.stores["primary"]
    store.put(key_of(DB, shelf.run(1)), store.get(key_of(DB, whole)))
    (newest, _) = shelf.sets.newest_first(DB)
    assert newest.found is None
    assert "is another set" in newest.problems["primary"]


def test_the_newest_complete_set_holds_every_source_that_is_asked_for(
    shelf: Shelf, whole: str
) -> None:
    alone = shelf.run(1)
    shelf.put(alone, "postgres")
    shelf.record(alone, ["postgres"])
    broken = shelf.run(2)
    shelf.put(broken, "postgres")
    with pytest.raises(PermanentError):
        shelf.record(broken, ["postgres", "redis"])
    assert shelf.sets.newest_complete(DB, sources=["postgres", "redis"]).set_id == whole
    assert shelf.sets.newest_complete(DB, sources=["postgres"]).set_id == alone
    with pytest.raises(NotFoundError, match=f"the newest, {broken}, has no verified backup"):
        shelf.sets.newest_complete(DB, sources=["vector"])


def test_an_unknown_set_is_not_found_and_a_wrong_id_says_what_one_looks_like(
    shelf: Shelf,
) -> None:
    with pytest.raises(NotFoundError, match="There is no set"):
        shelf.sets.find(shelf.run(9), components=list(Component))
    with pytest.raises(ConfigurationError, match="look like"):
        shelf.sets.find("newest", components=[DB])


def test_sets_are_no_source_and_no_problem_to_who_reads_backups(shelf: Shelf, whole: str) -> None:
    assert list(Inventory(shelf.stores).sources()) == [(DB, "postgres"), (DB, "redis")]
    report = rebuild(MemoryCatalog(), shelf.stores)
    assert report.problems == []
    assert report.backups == 2


def test_a_store_with_nothing_but_sets_is_an_empty_store(shelf: Shelf) -> None:
    with pytest.raises(BackupError):
        shelf.record(shelf.run(0), ["postgres"])
    assert rebuild(MemoryCatalog(), shelf.stores).problems == []


def test_what_was_saved_before_a_restore_is_never_taken_for_the_newest_backup(
    shelf: Shelf, whole: str
) -> None:
    saved = shelf.run(1)
    shelf.put(saved, "postgres", second=3600, before_restore="restore-1")
    inventory = Inventory(shelf.stores)
    assert inventory.find("postgres", component=DB).ref.set_id == whole
    named = inventory.find("postgres", component=DB, backup_id=f"{saved}-postgres")
    assert named.ref.set_id == saved
