"""Every object of a stored backup, damaged in every way: found by name, and never restored."""

# ruff: noqa: S311 - the same damage in every run

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from neuroca_backup.errors import BackupError, DamagedError
from neuroca_backup.model.status import Level
from support.wiring import (
    back_up,
    databases,
    local_places,
    plan_of,
    region_places,
    restore,
    scratch_database,
    session,
    wire,
)

if TYPE_CHECKING:
    from neuroca_backup.model.endpoint import Endpoint
    from neuroca_backup.model.identity import BackupRef
    from neuroca_backup.runtime import Runtime

SEGMENT = 1024 * 1024  # of the sealed format: a cut between two segments is the tidiest one
SEED = 20261123

# What becomes of an object; None says that it is removed.
Damage = Callable[[bytes, random.Random], bytes | None]


def _flip(position: Callable[[bytes, random.Random], int]) -> Damage:
    def flip(data: bytes, chance: random.Random) -> bytes:
        damaged = bytearray(data)
        damaged[position(data, chance)] ^= 1 << chance.randrange(8)
        return bytes(damaged)

    return flip


DAMAGES: dict[str, Damage] = {
    "a bit of the first byte flipped": _flip(lambda _data, _chance: 0),
    "a bit of the last byte flipped": _flip(lambda data, _chance: len(data) - 1),
    "a bit somewhere flipped": _flip(lambda data, chance: chance.randrange(len(data))),
    "its last byte cut off": lambda data, _chance: data[:-1],
    "cut between two segments": lambda data, _chance: data[: (len(data) - 1) // SEGMENT * SEGMENT],
    "emptied": lambda _data, _chance: b"",
    "removed": lambda _data, _chance: None,
    "lengthened": lambda data, chance: data + chance.randbytes(16),
    "lengthened by a segment of itself": lambda data, _chance: data + data[-SEGMENT:],
}


@dataclass
class Stored:
    """A verified backup in two directories, an older one, and the bytes of both."""

    runtime: Runtime
    root: Path
    ref: BackupRef
    older: BackupRef
    twin: Endpoint
    pristine: dict[Path, bytes] = field(default_factory=dict)

    def remember(self) -> None:
        self.pristine = {
            path: path.read_bytes()
            for store in ("primary", "secondary")
            for path in (self.root / store).rglob("*")
            if path.is_file()
        }

    def mend(self) -> None:
        """Put back every byte that a test or a verification has changed."""
        for store in ("primary", "secondary"):
            for path in (self.root / store).rglob("*"):
                if path.is_file() and path not in self.pristine:
                    path.unlink()
        for path, data in self.pristine.items():
            if not path.exists() or path.read_bytes() != data:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)

    def objects(self, store: str) -> list[Path]:
        """The files of the newer backup."""
        home = self.root / store / self.ref.prefix
        return sorted(path for path in self.pristine if path.is_relative_to(home))

    def key(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix().partition("/")[2]

    def older_twin_of(self, path: Path) -> Path | None:
        """The object that has the same place in the older backup."""
        store = path.relative_to(self.root).parts[0]
        home = self.root / store / self.older.prefix
        inner = path.relative_to(self.root / store / self.ref.prefix)
        if len(inner.parts) == 1:
            return home / inner
        (attempt,) = [entry for entry in home.iterdir() if entry.is_dir()]
        found = attempt.joinpath(*inner.parts[1:])
        return found if found in self.pristine else None


def write(path: Path, data: bytes | None) -> None:
    if data is None:
        path.unlink(missing_ok=True)
    else:
        path.write_bytes(data)


@pytest.fixture(scope="module", params=["staged", "streamed"])
def stored(
    request: pytest.FixtureRequest,
    postgres: Endpoint,
    postgres_twin: Endpoint,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stored]:
    root = tmp_path_factory.mktemp("damage")
    name = f"damage_{request.param}"
    with scratch_database(postgres, name, also_on=[postgres_twin]) as source:
        with session(source) as opened:
            # More than two segments that no compression makes smaller.
            opened.execute("CREATE TABLE memory.noise (payload bytea)")
            opened.execute(
                "INSERT INTO memory.noise SELECT decode(string_agg(md5(n::text || m::text), ''),"
                " 'hex') FROM generate_series(1, 320) AS n, generate_series(1, 512) AS m GROUP BY n"
            )
        runtime = wire(
            local_places(root),
            postgres=source,
            spool=root / "spool",
            mode=request.param,
            options={"databases": [name], "jobs": 1},
        )
        older, ref = back_up(runtime, age=timedelta(hours=1)), back_up(runtime)
        found = Stored(runtime=runtime, root=root, ref=ref, older=older, twin=postgres_twin)
        found.remember()
        assert max(map(len, found.pristine.values())) > 2 * SEGMENT
        yield found


@pytest.fixture(autouse=True)
def _mended(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "stored" in request.fixturenames:
        request.getfixturevalue("stored").mend()


def assert_found(stored: Stored, store: str, *paths: Path) -> None:
    """Verification fails, names every damaged object and its store, and no other."""
    with pytest.raises(DamagedError) as caught:
        stored.runtime.verifier.verify(stored.ref)
    named = {finding.split(": ")[1] for finding in caught.value.facts["findings"]}
    assert {finding.split(": ")[0] for finding in caught.value.facts["findings"]} == {store}
    assert named == {stored.key(path) for path in paths}
    assert store in str(caught.value)


def assert_restored_from_the_other(stored: Stored, store: str, *paths: Path) -> None:
    """A fetch gives every member whole, and says which copy it left out."""
    plan = plan_of(stored.runtime, stored.ref)
    preferred = [store, *(name for name in plan.stores if name != store)]
    fetched = stored.runtime.restores.fetch(
        type(plan).from_json({**plan.to_json(), "stores": preferred})
    )
    stored.runtime.restores.clear(plan.restore_id)
    assert fetched.size == plan.plain_size
    needed = [path for path in paths if path.name != "verification.json"]
    for path in needed:
        name = path.name if path.parent.name != "members" else stored.key(path)
        told = [note for note in fetched.fallbacks if store in note and name in note]
        assert told, (path, fetched.fallbacks)
    if not needed:
        assert not fetched.fallbacks


@pytest.mark.parametrize("store", ["primary", "secondary"])
@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_to_any_object_is_found_and_the_other_copy_restored(
    stored: Stored, kind: str, store: str
) -> None:
    chance = random.Random(f"{SEED}{kind}{store}")
    for path in stored.objects(store):
        data = stored.pristine[path]
        if kind == "cut between two segments" and len(data) <= SEGMENT:
            continue
        if kind == "removed" and path.name == "verification.json":
            continue  # see the test about it
        write(path, DAMAGES[kind](data, chance))
        assert_found(stored, store, path)
        write(path, DAMAGES[kind](data, chance))
        assert_restored_from_the_other(stored, store, path)
        stored.mend()


@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_to_both_copies_raises_and_leaves_the_target_alone(
    stored: Stored, kind: str
) -> None:
    chance = random.Random(f"{SEED}{kind}")
    before = databases(stored.twin)
    for path, other in zip(stored.objects("primary"), stored.objects("secondary"), strict=True):
        if path.name == "verification.json":
            continue
        if kind == "cut between two segments" and len(stored.pristine[path]) <= SEGMENT:
            continue
        for one in (path, other):
            write(one, DAMAGES[kind](stored.pristine[one], chance))
        with pytest.raises(BackupError) as caught:
            restore(stored.runtime, stored.twin, ref=stored.ref)
        assert "primary" in str(caught.value)
        assert "secondary" in str(caught.value)
        stored.mend()
    assert databases(stored.twin) == before


def test_a_random_bit_anywhere_in_a_backup_is_found(stored: Stored) -> None:
    chance = random.Random(SEED)
    for _ in range(25):
        store = chance.choice(["primary", "secondary"])
        path = chance.choice(stored.objects(store))
        write(path, DAMAGES["a bit somewhere flipped"](stored.pristine[path], chance))
        assert_found(stored, store, path)
        stored.mend()


@pytest.mark.parametrize("store", ["primary", "secondary"])
def test_two_members_that_changed_places_are_found(stored: Stored, store: str) -> None:
    members = [path for path in stored.objects(store) if "/members/" in path.as_posix()]
    chance = random.Random(SEED)
    for _ in range(5):
        first, second = chance.sample(members, 2)
        write(first, stored.pristine[second])
        write(second, stored.pristine[first])
        assert_found(stored, store, first, second)
        assert_restored_from_the_other(stored, store, first, second)
        stored.mend()


@pytest.mark.parametrize("store", ["primary", "secondary"])
def test_an_object_of_an_older_backup_in_the_place_of_ours_is_found(
    stored: Stored, store: str
) -> None:
    seen = 0
    for path in stored.objects(store):
        other = stored.older_twin_of(path)
        if other is None:
            continue
        seen += 1
        write(path, stored.pristine[other])
        assert_found(stored, store, path)
        write(path, stored.pristine[other])
        assert_restored_from_the_other(stored, store, path)
        stored.mend()
    assert seen >= 4


def test_an_object_that_no_manifest_names_is_found(stored: Stored) -> None:
    stray = stored.objects("primary")[0].parent / "members" / "stray"
    stray = next(path for path in stored.objects("primary") if "/members/" in str(path)).parent
    stray = stray / "stray"
    stray.write_bytes(b"stray")
    assert_found(stored, "primary", stray)


def test_a_backup_whose_verification_was_removed_counts_as_unverified_until_the_next_one(
    stored: Stored,
) -> None:
    for store in ("primary", "secondary"):
        (stored.root / store / stored.ref.verification_key).unlink()
    assert plan_of(stored.runtime).backup_id == stored.older.backup_id
    assert not plan_of(stored.runtime, stored.ref).verified
    stored.runtime.verifier.verify(stored.ref)
    assert plan_of(stored.runtime).backup_id == stored.ref.backup_id


def test_a_damaged_backup_is_passed_over_for_the_newest_sound_one(stored: Stored) -> None:
    for store in ("primary", "secondary"):
        path = next(p for p in stored.objects(store) if p.name == "globals.sql")
        write(path, b"")
    with pytest.raises(DamagedError):
        stored.runtime.verifier.verify(stored.ref)
    assert plan_of(stored.runtime).backup_id == stored.older.backup_id


def test_verifying_a_backup_that_does_not_exist_leaves_nothing_behind(stored: Stored) -> None:
    missing = type(stored.ref)(
        backup_id="20200101T000000Z-00000000-postgres", component=stored.ref.component
    )
    with pytest.raises(BackupError, match="no backup 20200101T000000Z"):
        stored.runtime.verifier.verify(missing)
    assert not list(stored.root.glob(f"*/{missing.prefix}/**/*"))


def test_damage_in_a_bucket_is_found_and_the_other_region_restored(
    postgres: Endpoint,
    postgres_twin: Endpoint,
    object_stores: dict[str, Endpoint],
    tmp_path: Path,
) -> None:
    with scratch_database(postgres, "damaged_bucket", also_on=[postgres_twin]) as source:
        runtime = wire(
            region_places(object_stores),
            postgres=source,
            spool=tmp_path / "spool",
            mode="streamed",
            options={"databases": [source.database]},
        )
        ref = back_up(runtime)
        store = runtime.stores["primary"]
        wanted = ("manifest.json", "keys.json", "members/databases")
        for key in [one.key for one in store.list(ref.prefix)]:
            if not any(word in key for word in wanted):
                continue
            data = store.get(key)
            store.put(key, DAMAGES["a bit somewhere flipped"](data, random.Random(SEED)) or b"")
            assert runtime.verifier.check(ref, "primary", level=Level.INTACT).findings[0].key == key
            plan = plan_of(runtime, ref)
            fetched = runtime.restores.fetch(plan)
            assert any("primary" in note for note in fetched.fallbacks)
            assert fetched.bytes_by_store.get("secondary")
            store.put(key, data)
        assert runtime.verifier.check(ref, "secondary", level=Level.PARSED).level == Level.PARSED
