"""Rebuilding the catalog from real directory stores, sound ones and ones that are not."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from neuroca_backup.catalog.memory import MemoryCatalog
from neuroca_backup.errors import StoreUnavailableError, UnreachableError
from neuroca_backup.model import document
from neuroca_backup.model.identity import BackupRef, Component, set_id
from neuroca_backup.model.manifest import Digest, Dump, Manifest, Member, SealedManifest
from neuroca_backup.model.status import Level, Verification
from neuroca_backup.services.rebuild import PATIENCE, rebuild
from neuroca_backup.stores.local import MARKER, LocalStore
from support.moments import MOMENT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
REF = BackupRef.of(set_id(at=NOON, run="one"), Component.DATABASE, "postgres")


class World:
    """Two stores and the catalog that was written while they were filled."""

    def __init__(self, folder: Path) -> None:
        self.catalog = MemoryCatalog()
        self.folder = folder
        self.stores: dict[str, Any] = {}
        for name in ("primary", "secondary"):
            store = LocalStore(name, folder / name)
            store.initialise()
            self.stores[name] = store

    def backup(
        self,
        source: str = "postgres",
        *,
        run: str = "one",
        component: Component = Component.DATABASE,
        stores: tuple[str, ...] = ("primary", "secondary"),
        level: Level | None = Level.PARSED,
    ) -> BackupRef:
        """Write a backup as the pipeline does: manifest, verification, catalog."""
        ref = BackupRef.of(set_id(at=NOON, run=run), component, source)
        digest = Digest(size=10, sha256="ab" * 32)
        manifest = Manifest(
            backup_id=ref.backup_id,
            set_id=ref.set_id,
            component=component,
            source=source,
            engine="postgresql",
            attempt="0badcafe",
            stages=("compression", "sealing"),
            dump=Dump(server_version="18.0", consistency=MOMENT, facts={}),
            members=(Member(name="dump", plain=digest, stored=digest),),
            started_at=NOON,
            finished_at=NOON + timedelta(minutes=3),
            product="neuroca-backup 0.1.0",
        )
        for name in stores:
            store = self.stores[name]
            store.put(ref.member_key("0badcafe", "dump"), b"0123456789")
            store.put(ref.manifest_key, SealedManifest.seal(manifest, lambda _: "5ea1").encode())
            self.catalog.record_backup(manifest, store=name)
            if level is not None:
                check = Verification(
                    backup_id=ref.backup_id,
                    store=name,
                    level=level,
                    checked_at=NOON + timedelta(minutes=5),
                    seconds=1,
                    bytes_read=10,
                )
                store.put(ref.verification_key, document.encode(check.model_dump(mode="json")))
                self.catalog.record_verification(check)
        return ref

    def path(self, store: str, key: str) -> Path:
        return self.folder / store / key


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def listed(catalog: MemoryCatalog) -> list[str]:
    return sorted(entry.backup_id for entry in catalog.backups())


def problems(report: Any) -> list[str]:
    return [str(problem) for problem in report.problems]


class Faulty:
    """A store that fails where told to, and otherwise is the one it wraps."""

    def __init__(self, store: LocalStore, **faults: Callable[..., Any]) -> None:
        self._store = store
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        return self._faults.get(name, getattr(self._store, name))


def unavailable(*_: object) -> Any:
    raise StoreUnavailableError("the store stumbled", remedy="Try again.")


def test_a_rebuilt_catalog_lists_the_same_backups_at_the_same_levels(world: World) -> None:
    world.backup()
    world.backup("redis", component=Component.MEMORY_TIERS, level=None)
    world.backup("mongodb", stores=("secondary",), level=Level.INTACT)
    world.backup(run="two", level=Level.RESTORED)
    fresh = MemoryCatalog()
    report = rebuild(fresh, world.stores)
    assert list(fresh.backups()) == list(world.catalog.backups())
    assert (report.backups, report.copies, report.complete) == (4, 7, True)


def test_rebuilding_twice_changes_nothing(world: World) -> None:
    world.backup()
    before = list(world.catalog.backups())
    for _ in range(2):
        assert rebuild(world.catalog, world.stores).complete
    assert list(world.catalog.backups()) == before


def test_two_empty_stores_make_an_empty_catalog(world: World) -> None:
    report = rebuild(world.catalog, world.stores)
    assert (report.backups, report.complete, listed(world.catalog)) == (0, True, [])


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: data.replace(b"redis", b"rodis"), lambda _: b""]
)
def test_a_damaged_manifest_is_reported_and_its_backup_not_forgotten(
    world: World, damage: Callable[[bytes], bytes]
) -> None:
    world.backup()
    ref = world.backup("redis", stores=("primary",))
    manifest = world.path("primary", ref.manifest_key)
    manifest.write_bytes(damage(manifest.read_bytes()))
    report = rebuild(world.catalog, world.stores)
    (problem,) = report.problems
    assert (problem.store, problem.key) == ("primary", ref.manifest_key)
    assert not report.complete
    assert ref.backup_id in listed(world.catalog)
    assert report.forgotten == []


def test_a_backup_damaged_in_one_store_is_found_in_the_other(world: World) -> None:
    ref = world.backup()
    world.path("primary", ref.manifest_key).write_bytes(b"{}")
    fresh = MemoryCatalog()
    report = rebuild(fresh, world.stores)
    (entry,) = fresh.backups()
    assert entry.levels == {"secondary": Level.PARSED}
    assert [problem.store for problem in report.problems] == ["primary"]


def test_the_manifest_of_another_backup_is_reported(world: World) -> None:
    ref, other = world.backup(), world.backup(run="two")
    data = world.path("primary", other.manifest_key).read_bytes()
    world.path("primary", ref.manifest_key).write_bytes(data)
    (problem,) = rebuild(world.catalog, world.stores).problems
    assert "manifest of another backup" in problem.problem


def test_a_damaged_verification_is_reported_and_proves_nothing(world: World) -> None:
    ref = world.backup(stores=("primary",))
    world.backup(run="two")
    path = world.path("primary", ref.verification_key)
    path.write_bytes(path.read_bytes().replace(b'"level":4', b'"level":5'))
    fresh = MemoryCatalog()
    (problem,) = rebuild(fresh, world.stores).problems
    assert (problem.store, problem.key) == ("primary", ref.verification_key)
    levels = {entry.backup_id: entry.levels for entry in fresh.backups()}
    assert levels[ref.backup_id] == {"primary": Level.NONE}


def test_a_verification_of_another_stores_copy_proves_nothing_here(world: World) -> None:
    ref = world.backup()
    data = world.path("primary", ref.verification_key).read_bytes()
    world.path("secondary", ref.verification_key).write_bytes(data)
    fresh = MemoryCatalog()
    (problem,) = rebuild(fresh, world.stores).problems
    assert "in primary; verify again" in problem.problem
    assert fresh.backups()[0].levels == {"primary": Level.PARSED, "secondary": Level.NONE}


def test_a_folder_without_a_manifest_is_no_backup_and_no_problem(world: World) -> None:
    world.backup("redis")
    ref = world.backup(run="two")
    for name in world.stores:
        world.path(name, ref.manifest_key).unlink()
    report = rebuild(world.catalog, world.stores)
    assert report.unfinished == [f"primary: {ref.prefix}", f"secondary: {ref.prefix}"]
    assert (report.complete, report.forgotten) == (True, [ref.backup_id])


@pytest.mark.parametrize(
    "key",
    [
        "datbase/postgres/x/manifest.json",
        "database/postgres/latest/manifest.json",
        f"database/redis/{REF.backup_id}/manifest.json",
    ],
)
def test_a_folder_that_cannot_be_a_backup_is_reported(world: World, key: str) -> None:
    world.backup()
    world.stores["primary"].put(key, b"{}")
    report = rebuild(world.catalog, world.stores)
    assert [problem.store for problem in report.problems] == ["primary"]
    assert key.startswith(report.problems[0].key)
    assert report.backups == 1


def test_a_backup_that_no_store_holds_any_more_is_forgotten(world: World) -> None:
    world.backup()
    ref = world.backup(run="two")
    for name, store in world.stores.items():
        for key in [stat.key for stat in store.list(ref.prefix)]:
            world.path(name, key).unlink()
    report = rebuild(world.catalog, world.stores)
    assert report.forgotten == [ref.backup_id]
    assert listed(world.catalog) == [REF.backup_id]


def test_a_copy_that_is_gone_is_no_longer_listed_as_proven(world: World) -> None:
    world.backup("redis")
    ref = world.backup()
    world.stores["primary"].delete(ref.manifest_key)
    report = rebuild(world.catalog, world.stores)
    levels = {entry.backup_id: entry.levels for entry in world.catalog.backups()}
    assert levels[ref.backup_id] == {"secondary": Level.PARSED}
    assert (report.forgotten, report.complete) == ([], True)


def test_nothing_is_forgotten_while_a_store_cannot_be_listed(world: World) -> None:
    world.backup()
    gone = world.backup(run="two", stores=("primary",))
    world.stores["primary"].delete(gone.manifest_key)
    world.path("secondary", MARKER).unlink()  # as if it were not mounted
    report = rebuild(world.catalog, world.stores)
    assert gone.backup_id in listed(world.catalog)
    assert report.forgotten == []
    assert [problem.store for problem in report.problems] == ["secondary"]


def test_nothing_is_forgotten_when_a_listing_breaks_off_half_way(world: World) -> None:
    world.backup()
    last = world.backup("redis", component=Component.MEMORY_TIERS)

    def folders(prefix: str = "") -> Iterator[str]:
        yield from () if prefix else ("database",)
        if prefix:
            yield from whole.folders(prefix)
        else:
            unavailable()

    whole = world.stores["primary"]
    world.stores = {"primary": Faulty(whole, folders=folders)}
    report = rebuild(world.catalog, world.stores)
    assert last.backup_id in listed(world.catalog)
    assert problems(report) == [
        "primary: (top): the walk ended here: the store stumbled. Try again."
    ]


def test_a_store_that_vanishes_under_the_walk_does_not_lose_its_last_backup(world: World) -> None:
    ref = world.backup(stores=("primary",))
    store = world.stores["primary"]

    def get(key: str) -> bytes:
        world.path("primary", MARKER).unlink()
        data: bytes = store.get(key)
        return data

    report = rebuild(world.catalog, {"primary": Faulty(store, get=get)})
    assert listed(world.catalog) == [ref.backup_id]
    assert "not mounted" in problems(report)[0]


def test_a_store_that_lost_everything_is_a_problem_and_nothing_is_forgotten(world: World) -> None:
    ref = world.backup()
    for store in world.stores.values():
        for key in [stat.key for stat in store.list()]:
            store.delete(key)
    report = rebuild(world.catalog, world.stores)
    assert listed(world.catalog) == [ref.backup_id]
    assert len(report.problems) == 2
    assert "the catalog lists 1 there" in problems(report)[0]


def test_a_store_with_objects_but_no_backup_is_a_problem(world: World) -> None:
    world.backup(stores=("primary",))
    world.stores["secondary"].put("database/postgres/readme.txt", b"not a backup")
    report = rebuild(MemoryCatalog(), world.stores)
    assert problems(report) == [
        "secondary: (top): holds objects but no backup; check its bucket and path"
    ]


def test_an_object_that_is_not_given_is_reported_and_the_others_are_recorded(world: World) -> None:
    refs = [world.backup(source) for source in ("mongodb", "postgres", "redis")]
    store = world.stores["primary"]

    def get(key: str) -> bytes:
        return unavailable() if "postgres" in key else store.get(key)  # type: ignore[no-any-return]

    fresh = MemoryCatalog()
    report = rebuild(fresh, {"primary": Faulty(store, get=get)})
    assert listed(fresh) == [refs[0].backup_id, refs[2].backup_id]
    assert [problem.key for problem in report.problems] == [refs[1].prefix]


def test_a_store_that_keeps_failing_is_given_up_and_the_next_one_is_walked(world: World) -> None:
    asked = []

    def get(key: str) -> bytes:
        asked.append(key)
        unavailable()
        return b""

    for number in range(PATIENCE + 5):
        world.backup(run=str(number))
    fresh = MemoryCatalog()
    stores = {**world.stores, "primary": Faulty(world.stores["primary"], get=get)}
    report = rebuild(fresh, stores)
    assert len(asked) == PATIENCE
    assert len(fresh.backups()) == PATIENCE + 5
    assert not report.complete


def test_a_backup_made_while_the_stores_are_walked_is_not_forgotten(world: World) -> None:
    world.backup(stores=("primary",))
    store = world.stores["primary"]
    made: list[BackupRef] = []

    def get(key: str) -> bytes:
        if not made:  # its folder comes earlier in the order of keys, so the walk has passed it
            made.append(world.backup("app", component=Component.CONFIGURATION, stores=("primary",)))
        data: bytes = store.get(key)
        return data

    assert rebuild(world.catalog, {"primary": Faulty(store, get=get)}).forgotten == []
    assert made[0].backup_id in listed(world.catalog)


def test_a_catalog_that_fails_ends_the_rebuild(world: World) -> None:
    class Broken(MemoryCatalog):
        def record_backup(self, *_: object, **__: object) -> None:
            raise UnreachableError("the catalog is away", remedy="Start it.")

    world.backup()
    with pytest.raises(UnreachableError, match="the catalog is away"):
        rebuild(Broken(), world.stores)
