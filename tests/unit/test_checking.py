"""Reading stored copies back: what is told when one has fallen, is gone, or cannot be read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO

import pytest

from neuroca_backup.catalog.memory import MemoryCatalog
from neuroca_backup.errors import (
    ArchivedError,
    ConfigurationError,
    DamagedError,
    EmptySourceError,
    PermanentError,
    StoreUnavailableError,
    TransientError,
    UnreachableError,
)
from neuroca_backup.keyring.keys_document import Keyring, KeysDocument, WrappedKeyset
from neuroca_backup.model import document
from neuroca_backup.model.backup_set import BackupSet
from neuroca_backup.model.identity import BackupRef, Component, set_id
from neuroca_backup.model.manifest import Digest, Dump, Manifest, Member, SealedManifest
from neuroca_backup.model.retention import Hold, Tombstone
from neuroca_backup.model.status import Finding, Level, Verification
from neuroca_backup.services.audit import Audit
from neuroca_backup.services.checking.planning import Rules
from neuroca_backup.services.checking.report import Report
from neuroca_backup.services.checking.running import Checking
from neuroca_backup.services.inventory import Inventory, read_verification
from neuroca_backup.services.verify import Verifier
from neuroca_backup.stores import ObjectStat
from support.memory_store import MemoryStore

NOW = datetime.now(UTC)
DAY = timedelta(days=1)
ATTEMPT = "a1b2c3d4"
BOTH = ("primary", "secondary")
DATA = b"what was backed up"


class Cold(MemoryStore):
    """A store that has archived the objects in `asleep`."""

    def __init__(self, *words: Any) -> None:
        super().__init__(*words)
        self.asleep: set[str] = set()

    def get(self, key: str) -> bytes:
        if key in self.asleep:
            raise ArchivedError(f"{key} is archived", remedy="Ask for it.")
        return super().get(key)

    def stat(self, key: str) -> ObjectStat:
        return replace(super().stat(key), readable=key not in self.asleep)

    @contextmanager
    def reader(self, key: str, **words: Any) -> Iterator[BinaryIO]:
        with super().reader(key, **words) as stream:
            yield stream


class Shelf:
    """Two stores with backups of `postgres` that can be checked up to INTACT without a key."""

    def __init__(self) -> None:
        self.stores = {name: Cold(name, lambda: NOW) for name in BOTH}
        self.catalog = MemoryCatalog()
        self.seconds = 0.0

    def checking(self, **rules: Any) -> Checking:
        audit = Audit(stores=self.stores, catalog=self.catalog)
        verifier = Verifier(
            engine=lambda _: pytest.fail("nothing here is parsed"),
            stores=self.stores,
            keyring=Keyring([]),
            catalog=self.catalog,
            workers=1,
            audit=audit,
        )
        return Checking(
            stores=self.stores,
            verifier=verifier,
            rules=Rules(**{"readable": 0, "parsed": 0, **rules}),
            audit=audit,
            clock=lambda: NOW,
            stopwatch=self._tick,
        )

    def _tick(self) -> float:
        self.seconds += 1
        return self.seconds

    def put(
        self, age: float, *, stores: tuple[str, ...] = BOTH, read: float | None = 0.1
    ) -> BackupRef:
        """Store a backup that is `age` days old, and was found to be parsed `read` days ago."""
        at = NOW - age * DAY
        ref = BackupRef.of(set_id(at=at, run=str(age)), Component.DATABASE, "postgres")
        digest = Digest(size=len(DATA), sha256=hashlib.sha256(DATA).hexdigest())
        manifest = Manifest(
            backup_id=ref.backup_id,
            set_id=ref.set_id,
            component=ref.component,
            source=ref.source,
            engine="postgresql",
            attempt=ATTEMPT,
            stages=(),
            dump=Dump(server_version="1", consistency={"time": at.isoformat()}, facts={}),
            members=(Member(name="dump", plain=digest, stored=digest),),
            started_at=at,
            finished_at=at,
            product="test",
        )
        sealed = SealedManifest.seal(manifest, lambda _: "")
        wrapped = WrappedKeyset(kind="local", id="1", wrapped="AAAA")
        keys = KeysDocument(backup_id=ref.backup_id, recipients=(wrapped,))
        for name in stores:
            store = self.stores[name]
            store.put(ref.keys_key(ATTEMPT), keys.encode())
            store.put(ref.member_key(ATTEMPT, "dump"), DATA)
            store.put(ref.manifest_key, sealed.encode())
            if read is not None:
                self.note(ref, name, read=read, covered=sealed.covered)
        return ref

    def note(self, ref: BackupRef, name: str, *, read: float, covered: bytes = b"") -> None:
        found = Verification(
            backup_id=ref.backup_id,
            store=name,
            level=Level.PARSED,
            checked_at=NOW - read * DAY,
            seconds=1,
            bytes_read=1,
            manifest=hashlib.sha256(covered).hexdigest() if covered else "",
        )
        body = document.encode(found.model_dump(mode="json"))
        self.stores[name].put(ref.verification_key, body)

    def verification(self, ref: BackupRef, name: str = "primary") -> Verification:
        found = read_verification(self.stores[name], ref)
        assert found is not None
        return found

    def check(self, **words: Any) -> Report:
        return self.checking().check(Component.DATABASE, "postgres", **words)

    def drop(self, key: str, name: str = "primary") -> None:
        self.stores[name].delete(key)


@pytest.fixture
def shelf() -> Shelf:
    global NOW  # noqa: PLW0603 - a check is dated by the real clock, long after the import
    NOW = datetime.now(UTC)
    return Shelf()


def member(ref: BackupRef) -> str:
    return ref.member_key(ATTEMPT, "dump")


# What a level means after another one.


def test_what_a_deeper_check_has_proven_stands_while_the_bytes_are_the_same(shelf: Shelf) -> None:
    ref = shelf.put(9, read=8)

    report = shelf.check()

    assert (report.levels, report.fallen, report.overdue) == ({"intact": 2}, [], 2)
    found = shelf.verification(ref)
    assert (found.level, found.sound) == (Level.PARSED, True)
    assert found.level_at == NOW - 8 * DAY
    assert found.checked_at > NOW - DAY
    report.require_sound()
    # And once more: the time of the deep look stays that of the deep look.
    shelf.check(whole=True)
    assert shelf.verification(ref).level_at == NOW - 8 * DAY


def test_a_copy_of_another_manifest_than_the_verified_one_has_fallen(shelf: Shelf) -> None:
    ref = shelf.put(9)
    shelf.note(ref, "primary", read=8, covered=b"another manifest")

    report = shelf.check()

    (told,) = report.fallen
    assert told == (
        f"{ref.backup_id} in primary was PARSED and is PRESENT: primary:{ref.verification_key} "
        "is about another manifest than the one beside it"
    )
    assert shelf.check(whole=True).fallen == [], "it has been told, and nothing is wrong with it"


def test_a_result_of_before_manifests_were_noted_proves_no_more_than_it_says(shelf: Shelf) -> None:
    ref = shelf.put(9, read=None)
    shelf.note(ref, "primary", read=1)
    result = shelf.verification(ref)
    again = result.model_copy(update={"level": Level.INTACT, "manifest": "ab"})
    assert again.after(result).level is Level.INTACT


def test_a_level_that_fell_is_told_with_before_and_now_until_the_copy_is_sound_again(
    shelf: Shelf,
) -> None:
    ref = shelf.put(9, read=8)
    shelf.stores["primary"].put(member(ref), DATA[:-1])

    for report in (shelf.check(), shelf.check()):  # whoever was killed tells it the next time
        (told,) = report.fallen
        assert told.startswith(f"{ref.backup_id} in primary was PARSED and is PRESENT: ")
        assert member(ref) in told
        with pytest.raises(DamagedError, match="was PARSED and is PRESENT"):
            report.require_sound()
    noted = [one.level for one in shelf.catalog.verifications.values() if one.store == "primary"]
    assert noted == [Level.PRESENT] * 2
    assert not Inventory(shelf.stores).look(ref).sound_in("primary")

    shelf.stores["primary"].put(member(ref), DATA)
    assert shelf.check().fallen == []
    assert shelf.verification(ref).fell_from is None


def test_a_copy_that_was_never_sound_says_so(shelf: Shelf) -> None:
    ref = shelf.put(1, read=None)
    shelf.drop(member(ref))
    assert "in primary was never sound and is PRESENT" in shelf.check().fallen[0]


def test_of_many_findings_the_first_are_told() -> None:
    report = Report(Component.DATABASE, "postgres")
    result = Verification(
        backup_id="b",
        store="primary",
        level=Level.PRESENT,
        findings=[Finding(key=f"k{n}", problem="p") for n in range(9)],
        checked_at=NOW,
        seconds=1,
        bytes_read=1,
        fell_from=Level.RESTORED,
    )
    for _ in range(30):
        report.add(result, depth=Level.INTACT)
    told = report.to_json()["fallen"]
    assert told[0] == "b in primary was RESTORED and is PRESENT: k0: p; k1: p; k2: p; and 6 more"
    assert (len(told), told[-1]) == (21, "and 10 more")


# What is not there.


@pytest.mark.parametrize("lost", BOTH)
def test_a_manifest_that_is_gone_where_the_copy_was_checked_is_told_at_once(
    shelf: Shelf, lost: str
) -> None:
    ref = shelf.put(0.2, read=0.1)
    shelf.drop(ref.manifest_key, lost)
    assert f"in {lost} was PARSED and is NONE" in shelf.check().fallen[0]


def test_manifests_that_are_gone_from_all_stores_are_told_while_their_checks_lie_there(
    shelf: Shelf,
) -> None:
    shelf.put(2)
    ref = shelf.put(1)
    for name in BOTH:
        shelf.drop(ref.manifest_key, name)
    assert len(shelf.check().fallen) == 2


def test_a_copy_that_never_came_is_told_once_no_run_can_be_making_it(shelf: Shelf) -> None:
    young, old = shelf.put(2.9, stores=("primary",)), shelf.put(3.1, stores=("primary",))
    report = shelf.check()
    assert report.coming == 1
    assert [old.backup_id in one and young.backup_id not in one for one in report.fallen] == [True]
    assert "in secondary was never sound and is NONE" in report.fallen[0]


def test_a_damaged_manifest_is_told(shelf: Shelf) -> None:
    ref = shelf.put(1)
    shelf.stores["primary"].put(ref.manifest_key, b"{}")
    assert "was PARSED and is NONE" in shelf.check().fallen[0]


def test_what_has_expired_is_not_read_and_is_not_missed_while_it_is_deleted(shelf: Shelf) -> None:
    shelf.put(1)
    ref = shelf.put(40, read=30)
    mark = Tombstone(
        backup_id=ref.backup_id, expired_at=NOW, erase_after=NOW, reason="old", actor="test"
    )
    for name in BOTH:
        shelf.stores[name].put(ref.tombstone_key, mark.encode())
    assert shelf.check(whole=True).checked == 2
    for key in (ref.keys_key(ATTEMPT), ref.manifest_key, member(ref)):
        shelf.drop(key)
        assert shelf.check(whole=True).fallen == []
    shelf.drop(ref.manifest_key, "secondary")
    assert shelf.check(whole=True).fallen == []


def test_a_damaged_tombstone_or_hold_is_found_and_a_sound_one_is_not(shelf: Shelf) -> None:
    ref = shelf.put(1, read=None)
    hold = Hold(backup_id=ref.backup_id, reason="r", actor="a", held_at=NOW)
    shelf.stores["primary"].put(ref.hold_key, hold.encode())
    shelf.stores["secondary"].put(ref.hold_key, hold.encode()[:-1])
    (told,) = shelf.check().fallen
    assert f"in secondary was never sound and is PRESENT: secondary:{ref.hold_key}" in told
    shelf.stores["secondary"].put(ref.hold_key, hold.encode())
    shelf.stores["primary"].put(ref.tombstone_key, b"\0")
    (told,) = shelf.check().fallen
    assert f"in primary was INTACT and is PRESENT: primary:{ref.tombstone_key}" in told


# What cannot be read.


def test_an_archived_copy_is_reported_as_not_checkable_with_its_last_check(shelf: Shelf) -> None:
    ref = shelf.put(60, read=50)
    shelf.stores["secondary"].asleep = {member(ref)}

    report = shelf.check()

    assert report.levels == {"intact": 1}
    when = (NOW - 50 * DAY).isoformat(timespec="seconds")
    assert report.archived == [
        f"{ref.backup_id} in secondary is archived, last checked {when}: PARSED"
    ]
    assert report.to_json()["not_checkable"] == 1
    assert shelf.verification(ref, "secondary").checked_at == NOW - 50 * DAY
    report.require_sound()


@pytest.mark.parametrize("what", ["manifest", "keys", "all"])
def test_whatever_of_a_copy_is_archived_it_is_not_checkable_and_others_are_read(
    shelf: Shelf, what: str
) -> None:
    ref, other = shelf.put(60, read=50), shelf.put(50, read=50)
    store = shelf.stores["secondary"]
    every = {one.key for one in store.list(ref.prefix)}
    keys = {"manifest": {ref.manifest_key}, "keys": {ref.keys_key(ATTEMPT)}, "all": every}
    store.asleep = keys[what]

    report = shelf.check()

    assert (report.levels, report.fallen, report.failed) == ({"intact": 3}, [], [])
    assert [ref.backup_id in one for one in report.archived] == [True]
    assert Inventory(shelf.stores).look(other).manifests.keys() == set(BOTH)


@pytest.mark.parametrize("silent", BOTH)
def test_a_store_that_does_not_answer_fails_the_run_for_now_after_the_others_were_read(
    shelf: Shelf, silent: str
) -> None:
    shelf.put(9, read=8)
    shelf.stores[silent].answers = False

    report = shelf.check()

    assert report.levels == {"intact": 1}
    assert report.failed == [f"{silent}: {silent} does not answer"]
    with pytest.raises(StoreUnavailableError, match="not everything could be checked"):
        report.require_sound()


def test_damage_is_told_even_where_another_store_does_not_answer(shelf: Shelf) -> None:
    ref = shelf.put(9, read=8)
    shelf.drop(member(ref))
    shelf.stores["secondary"].answers = False
    with pytest.raises(DamagedError, match=r"was PARSED and is PRESENT.*secondary does not answer"):
        shelf.check().require_sound()


def test_a_store_that_dies_half_way_is_asked_no_more(shelf: Shelf) -> None:
    for age in (9, 10, 11):
        shelf.put(age, read=8)
    primary = shelf.stores["primary"]
    check, calls = Verifier.check, []

    def dying(self: Verifier, ref: BackupRef, name: str, *, level: Level) -> Verification:
        calls.append(name)
        primary.answers = False
        return check(self, ref, name, level=level)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Verifier, "check", dying)
        report = shelf.check()
    assert (calls.count("primary"), calls.count("secondary")) == (1, 3)
    assert (report.levels, report.left) == ({"intact": 3}, 3)
    with pytest.raises(TransientError):
        report.require_sound()


def test_keys_that_cannot_be_reached_keep_no_copy_of_that_store_from_being_read(
    shelf: Shelf,
) -> None:
    refs = [shelf.put(age, read=8) for age in (9, 10, 11)]
    check = Verifier.check

    def locked(self: Verifier, ref: BackupRef, name: str, *, level: Level) -> Verification:
        if ref == refs[0]:
            raise UnreachableError("KMS does not answer", remedy="Wait.")
        return check(self, ref, name, level=level)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Verifier, "check", locked)
        report = shelf.check()
    assert (report.levels, report.left, len(report.failed)) == ({"intact": 4}, 2, 2)
    with pytest.raises(TransientError, match="KMS does not answer"):
        report.require_sound()


def test_a_run_ends_in_time_and_says_what_is_still_overdue(shelf: Shelf) -> None:
    for age in range(10, 20):
        shelf.put(age, read=9)
    checking = shelf.checking(longest=timedelta(seconds=5))

    report = checking.check(Component.DATABASE, "postgres")

    assert (report.checked, report.overdue, report.left, report.later) == (4, 20, 16, 16)
    with pytest.raises(PermanentError, match="16 copies are still overdue"):
        report.require_sound()
    assert checking.check(Component.DATABASE, "postgres", whole=True).checked == 20


def test_a_repeated_run_reads_no_more_than_what_is_left(shelf: Shelf) -> None:
    for age in range(10, 20):
        shelf.put(age, read=3 + age / 10)
    first = shelf.check()
    assert first.checked == 4
    assert shelf.check().checked == 0, "its share has been read"


# What is looked at.


def test_sources_are_those_in_any_store_and_those_asked_for(shelf: Shelf) -> None:
    shelf.put(1, stores=("secondary",))
    checking, postgres = shelf.checking(), (Component.DATABASE, "postgres")
    assert checking.sources() == [postgres]
    assert checking.sources(component=Component.DATABASE, source="postgres") == [postgres]
    for words in ({"component": Component.LOGS}, {"source": "mongodb"}):
        with pytest.raises(ConfigurationError, match=r"There are backups of: database/postgres"):
            checking.sources(**words)  # type: ignore[arg-type]
    shelf.stores["primary"].answers = False
    assert checking.sources() == [postgres]
    shelf.stores["secondary"].answers = False
    with pytest.raises(StoreUnavailableError):
        checking.sources()


def test_stores_without_any_backup_are_no_success(shelf: Shelf) -> None:
    with pytest.raises(EmptySourceError, match="nothing could be checked"):
        shelf.checking().sources()
    shelf.stores["primary"].answers = False
    with pytest.raises(StoreUnavailableError):
        shelf.checking().sources()


def test_a_plan_reads_nothing_and_a_damaged_document_of_a_set_is_told(shelf: Shelf) -> None:
    shelf.put(9, read=8)
    before = {name: dict(store.objects) for name, store in shelf.stores.items()}
    checking = shelf.checking()
    plan = checking.plan(Component.DATABASE, "postgres", level=Level.READABLE)
    assert [check.level for check in plan.checks] == [Level.READABLE] * 2
    assert (plan.overdue, plan.size) == (2, 2 * len(DATA))
    assert {name: dict(store.objects) for name, store in shelf.stores.items()} == before

    made = BackupSet.of(
        set_id(at=NOW, run="1"), Component.DATABASE, {}, missing=("a",), recorded_at=NOW
    )
    for store in shelf.stores.values():
        store.put(made.key, made.encode())
    assert checking.doubtful_sets() == []
    shelf.stores["primary"].put(made.key, made.encode()[1:])
    (told,) = checking.doubtful_sets()
    assert made.key in told
