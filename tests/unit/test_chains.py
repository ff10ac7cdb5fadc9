"""Which backup is continued, what a restore gathers, what is offered where a link is missing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from neuroca_backup.errors import ChainBrokenError, NotFoundError
from neuroca_backup.model import document
from neuroca_backup.model.identity import BackupRef, Component, set_id
from neuroca_backup.model.manifest import Dump, Manifest, SealedManifest
from neuroca_backup.model.status import Finding, Level, Verification
from neuroca_backup.services import chains
from neuroca_backup.services.inventory import Inventory
from neuroca_backup.stores.local import LocalStore

NOW = datetime.now(UTC).replace(microsecond=0)
WEEK = timedelta(days=7)


class Shelf:
    """One store, filled with manifests by their age in hours."""

    def __init__(self, path: Path) -> None:
        self.store = LocalStore("primary", path)
        self.store.initialise()

    def put(
        self,
        age: float,
        parent: BackupRef | None = None,
        *,
        sound: bool | None = True,
        engine: str = "mongodb",
    ) -> BackupRef:
        """Store a backup of the state `age` hours ago; sound, damaged or (None) not verified."""
        at = NOW - timedelta(hours=age)
        of = set_id(at=at, run=str(at))
        ref = BackupRef.of(of, Component.DATABASE, "mongodb")
        manifest = Manifest(
            backup_id=ref.backup_id,
            set_id=of,
            component=ref.component,
            source=ref.source,
            engine=engine,
            attempt="a1b2c3d4",
            kind="incremental" if parent else "full",
            parent=parent.backup_id if parent else None,
            stages=(),
            dump=Dump(server_version="6.0.5", consistency={"time": at.isoformat()}, facts={}),
            members=(),
            started_at=at,
            finished_at=at,
            product="test",
        )
        self.store.put(ref.manifest_key, SealedManifest.seal(manifest, lambda _: "").encode())
        if sound is not None:
            self.verify(ref, sound=sound)
        return ref

    def verify(self, ref: BackupRef, *, sound: bool) -> None:
        """Record the result of a check."""
        result = Verification(
            backup_id=ref.backup_id,
            store="primary",
            level=Level.PARSED,
            findings=() if sound else (Finding(key="k", problem="p"),),
            checked_at=NOW,
            seconds=1,
            bytes_read=1,
        )
        self.store.put(ref.verification_key, document.encode(result.model_dump(mode="json")))

    @property
    def inventory(self) -> Inventory:
        return Inventory({"primary": self.store})

    def parent(self, **words: Any) -> tuple[str | None, str]:
        """Return what the next backup continues, and why it continues nothing."""
        ref = BackupRef.of(set_id(at=NOW, run="next"), Component.DATABASE, "mongodb")
        given = {"engine": "mongodb", "full_every": WEEK, "now": NOW, **words}
        found = chains.continued(self.inventory, ref, **given)
        return (found.parent.ref.backup_id if found.parent else None), found.reason

    def chain(self, ref: BackupRef) -> list[str]:
        """Return the ids that a restore of `ref` gathers."""
        found = chains.gather(self.inventory, self.inventory.look(ref))
        return [one.ref.backup_id for one in found]

    def covering(self, age: float) -> list[str]:
        """Return the ids that a restore to the state `age` hours ago gathers."""
        found = chains.covering(
            self.inventory, Component.DATABASE, "mongodb", until=NOW - timedelta(hours=age)
        )
        return [one.ref.backup_id for one in found]


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "primary")


def ids(*refs: BackupRef) -> list[str]:
    return [ref.backup_id for ref in refs]


def test_without_any_backup_a_full_one_is_taken(shelf: Shelf) -> None:
    assert shelf.parent() == (None, "there is no backup to continue")


def test_the_newest_verified_backup_is_continued(shelf: Shelf) -> None:
    full = shelf.put(48)
    more = shelf.put(24, full)
    assert shelf.parent() == (more.backup_id, "")


def test_what_is_not_verified_is_passed_over(shelf: Shelf) -> None:
    full = shelf.put(48)
    shelf.put(24, full, sound=None)
    shelf.put(12, full, sound=False)
    assert shelf.parent() == (full.backup_id, "")


def test_a_chain_with_an_unverified_link_is_not_continued(shelf: Shelf) -> None:
    full = shelf.put(48, sound=None)
    more = shelf.put(24, full)
    parent, reason = shelf.parent()
    assert parent is None
    assert full.backup_id in reason or "not verified" in reason
    shelf.verify(full, sound=True)
    assert shelf.parent() == (more.backup_id, "")


def test_a_chain_without_its_full_backup_is_not_continued(shelf: Shelf) -> None:
    full = shelf.put(48)
    shelf.put(24, full)
    shelf.store.delete(full.manifest_key)
    parent, reason = shelf.parent()
    assert parent is None
    assert f"{full.backup_id} is missing" in reason


def test_a_full_backup_that_is_too_old_ends_its_chain(shelf: Shelf) -> None:
    full = shelf.put(24 * 8)
    shelf.put(24, full)
    parent, reason = shelf.parent()
    assert parent is None
    assert reason == f"the last full backup, {full.backup_id}, is older than 168 hours"


def test_a_backup_by_another_engine_is_not_continued(shelf: Shelf) -> None:
    shelf.put(24, engine="other")
    assert "made by the engine other" in shelf.parent()[1]


def test_a_backup_from_the_future_is_not_continued(shelf: Shelf) -> None:
    full = shelf.put(24)
    shelf.put(-3)
    late = shelf.parent(now=NOW)
    assert late == (full.backup_id, "")


def test_a_run_that_was_due_earlier_does_not_continue_a_later_one(shelf: Shelf) -> None:
    full = shelf.put(48)
    shelf.put(24, full)
    due = BackupRef.of(
        set_id(at=NOW - timedelta(hours=30), run="late"), Component.DATABASE, "mongodb"
    )
    found = chains.continued(shelf.inventory, due, engine="mongodb", full_every=WEEK, now=NOW)
    assert found.parent is not None
    assert found.parent.ref == full


def test_a_restore_gathers_its_chain(shelf: Shelf) -> None:
    full = shelf.put(72)
    first = shelf.put(48, full)
    second = shelf.put(24, first)
    assert shelf.chain(full) == ids(full)
    assert shelf.chain(second) == ids(full, first, second)


def test_a_missing_link_is_named_and_the_newest_point_offered(shelf: Shelf) -> None:
    full = shelf.put(96)
    first = shelf.put(72, full)
    second = shelf.put(48, first)
    third = shelf.put(24, second)
    shelf.store.delete(second.manifest_key)
    with pytest.raises(ChainBrokenError) as caught:
        shelf.chain(third)
    assert caught.value.facts["link"] == second.backup_id
    assert f"of its chain {second.backup_id} is missing" in str(caught.value)
    assert f"The newest restorable point is {first.backup_id}" in caught.value.remedy


def test_a_link_that_every_check_found_damaged_breaks_the_chain(shelf: Shelf) -> None:
    full = shelf.put(72)
    other = shelf.put(60)
    more = shelf.put(48, full)
    shelf.verify(full, sound=False)
    with pytest.raises(ChainBrokenError, match="every copy of it is damaged") as caught:
        shelf.chain(more)
    assert other.backup_id in caught.value.remedy


def test_a_damaged_manifest_of_a_link_breaks_the_chain(shelf: Shelf) -> None:
    full = shelf.put(72)
    more = shelf.put(48, full)
    shelf.store.put(full.manifest_key, b"{}")
    with pytest.raises(ChainBrokenError, match="No verified backup of mongodb"):
        shelf.chain(more)


def test_a_chain_that_bites_its_tail_is_broken(shelf: Shelf) -> None:
    later = BackupRef.of(set_id(at=NOW, run="later"), Component.DATABASE, "mongodb")
    bitten = shelf.put(24, later)
    with pytest.raises(ChainBrokenError, match="as its parent"):
        shelf.chain(bitten)


def test_a_moment_is_covered_by_the_first_backup_after_it(shelf: Shelf) -> None:
    full = shelf.put(72)
    first = shelf.put(48, full)
    shelf.put(24, first)
    assert shelf.covering(60) == ids(full, first)
    assert shelf.covering(72) == ids(full)
    assert shelf.covering(48) == ids(full, first)


def test_a_moment_that_nothing_covers_names_its_neighbours(shelf: Shelf) -> None:
    old = shelf.put(96)
    shelf.put(72, old)
    shelf.put(24)
    with pytest.raises(NotFoundError) as caught:
        shelf.covering(48)
    before, after = (NOW - timedelta(hours=age) for age in (72, 24))
    assert before.isoformat() in caught.value.remedy
    assert after.isoformat() in caught.value.remedy
    with pytest.raises(NotFoundError, match="before it"):
        shelf.covering(1)
    with pytest.raises(NotFoundError, match="after it"):
        shelf.covering(200)


def referable(shelf: Shelf, **words: Any) -> tuple[str | None, str]:
    """Return what the next backup may refer to, and why it may refer to nothing."""
    ref = BackupRef.of(set_id(at=NOW, run="next"), Component.DATABASE, "mongodb")
    given = {"engine": "mongodb", "full_every": WEEK, "now": NOW, **words}
    found = chains.referable(shelf.inventory, ref, **given)
    return (found.parent.ref.backup_id if found.parent else None), found.reason


def test_the_newest_backup_that_is_whole_everywhere_is_referred_to(shelf: Shelf) -> None:
    assert referable(shelf) == (None, "it is the first one")
    shelf.put(48)
    newer = shelf.put(24)
    shelf.put(1, sound=None)
    assert referable(shelf) == (newer.backup_id, "")


def test_nothing_is_referred_to_that_another_engine_made_or_that_is_too_old(shelf: Shelf) -> None:
    shelf.put(24, engine="other")
    assert "made by the engine other" in referable(shelf)[1]
    old = shelf.put(24 * 8)
    assert referable(shelf)[0] is None
    assert referable(shelf, full_every=2 * WEEK)[0] == old.backup_id


def test_nothing_behind_a_damaged_backup_may_be_referred_to(shelf: Shelf) -> None:
    shelf.put(48)
    damaged = shelf.put(24, sound=False)
    parent, reason = referable(shelf)
    assert parent is None
    assert damaged.backup_id in reason
