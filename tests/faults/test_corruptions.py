"""Random corruptions of real backups of every engine: each is found, none stops the checker.

`NEUROCA_CORRUPTIONS` says how many there are, `NEUROCA_CORRUPTIONS_SEED` which.
"""

# ruff: noqa: S311 - the same damage in every run

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from neuroca_backup import engines, registry
from neuroca_backup.catalog.memory import MemoryCatalog
from neuroca_backup.errors import BackupError
from neuroca_backup.keyring.keys_document import Keyring
from neuroca_backup.keyring.local import LocalKeyFile
from neuroca_backup.model import document
from neuroca_backup.model.backup_set import BackupSet, SetMember
from neuroca_backup.model.identity import BackupRef, Component, set_id
from neuroca_backup.model.manifest import Manifest
from neuroca_backup.model.retention import Hold, Tombstone
from neuroca_backup.model.status import Checked, Level
from neuroca_backup.services.backup import Backups, BackupType, Subject
from neuroca_backup.services.checking.planning import Rules
from neuroca_backup.services.checking.running import Checking
from neuroca_backup.services.inventory import read_manifest
from neuroca_backup.services.verify import Verifier
from neuroca_backup.settings import CompressionSettings
from neuroca_backup.spool import Spool
from neuroca_backup.stores.local import LocalStore

COUNT = int(os.environ.get("NEUROCA_CORRUPTIONS", "300"))
SEED = os.environ.get("NEUROCA_CORRUPTIONS_SEED", "20261125")
KINDS = registry.kinds(engines)
STORES = ("primary", "secondary")
NOW = datetime.now(UTC)
# Another attempt at the newer backup is made of these: a few are enough, and they cost little.
REPEATED = ("filetree", "logs", "model_weights", "qdrant", "semantic_memory")
# After so many corruptions a copy that nobody has touched is looked at.
_INTACT_EVERY = 25
# Objects beside the manifest of which a backup may have none: to remove one says nothing false.
# Without a result the copy counts as never checked, without a look its source as changed, without
# a tombstone the backup stays; a hold lies in the other store, too, and holds from there.
OPTIONAL = ("verification.json", "checked.json", "hold.json", "tombstone.json")


class Installation:
    """Two directories with a key, and the services that make and check backups in them."""

    def __init__(self, root: Path, key: LocalKeyFile, subjects: Mapping[str, Subject]) -> None:
        self.root = root
        self.stores = {name: LocalStore(name, root / name) for name in STORES}
        for store in self.stores.values():
            root.mkdir(exist_ok=True)
            store.initialise()
        common: dict[str, Any] = {
            "stores": self.stores,
            "keyring": Keyring([key]),
            "catalog": MemoryCatalog(),
            "workers": 2,
        }
        self.verifier = Verifier(engine=engines.named, **common)
        self.backups = Backups(
            subject=subjects.__getitem__,
            spool=Spool(root / "spool"),
            compression=CompressionSettings(level=1, threads=1),
            **common,
        )

    def back_up(self, ref: BackupRef, backup_type: BackupType) -> None:
        ticket = self.backups.run(ref, mode="staged", backup_type=backup_type)
        assert not ticket.unchanged
        self.verifier.verify(ref)


@dataclass
class Shelf:
    """An older and a newer verified backup of every engine, and another attempt at the newer."""

    here: Installation
    elsewhere: Installation
    backups: dict[str, tuple[BackupRef, BackupRef]] = field(default_factory=dict)
    pristine: dict[Path, bytes] = field(default_factory=dict)

    def remember(self) -> None:
        for name in STORES:
            for path in (self.here.root / name).rglob("*"):
                if path.is_file():
                    self.pristine[path] = path.read_bytes()

    def manifest(self, ref: BackupRef, store: str) -> Manifest:
        return read_manifest(self.here.stores[store], ref).manifest

    def path(self, store: str, key: str) -> Path:
        return self.here.root / store / key

    def mend(self, paths: Sequence[Path]) -> None:
        for path in paths:
            if path in self.pristine:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(self.pristine[path])
            else:
                path.unlink()


def _adapted(kind: str, tmp_path_factory: pytest.TempPathFactory, request: Any) -> Any:
    """Return what fills the server of an engine, as the contract of the engines does."""

    def fixture(name: str) -> Any:
        if name == "tmp_path":
            return tmp_path_factory.mktemp(kind)
        return request.getfixturevalue(name)

    proxy = SimpleNamespace(getfixturevalue=fixture, node=SimpleNamespace(name=f"corrupt_{kind}"))
    return import_module(f"support.engines.{kind}").adapter(proxy)


@pytest.fixture(scope="module")
def shelf(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    root = tmp_path_factory.mktemp("corruptions")
    key = LocalKeyFile.generate(root / "local.key") or LocalKeyFile(root / "local.key")
    subjects: dict[str, Subject] = {}
    made = Shelf(
        Installation(root / "here", key, subjects), Installation(root / "elsewhere", key, subjects)
    )
    for kind in KINDS:
        with _adapted(kind, tmp_path_factory, request) as adapter:
            engine = engines.named(kind)
            subjects[kind] = Subject(
                name=kind,
                component=Component.DATABASE,
                kind=kind,
                engine=engine,
                endpoint=adapter.source,
                options=engine.options(adapter.options),
                retention=timedelta(days=30),
                full_every=timedelta(days=7),
            )
            older, newer = (
                BackupRef.of(set_id(at=NOW - age, run=kind), Component.DATABASE, kind)
                for age in (timedelta(hours=2), timedelta(hours=1))
            )
            made.here.back_up(older, BackupType.FULL)
            adapter.add(3)
            # Where the engine can, it continues the older one, or refers to it.
            made.here.back_up(newer, BackupType.AUTO)
            if kind in REPEATED:
                made.elsewhere.back_up(newer, BackupType.FULL)
            made.backups[kind] = (older, newer)
            for store in made.here.stores.values():
                _beside(store, older, newer)
    made.remember()
    return made


def _beside(store: LocalStore, older: BackupRef, newer: BackupRef) -> None:
    """Write the small objects that the life of a backup brings."""
    mark = Tombstone(
        backup_id=older.backup_id, expired_at=NOW, erase_after=NOW, reason="old", actor="test"
    )
    for ref in (older, newer):
        look = Checked(backup_id=ref.backup_id, checked_at=NOW, fingerprint="0" * 64)
        hold = Hold(backup_id=ref.backup_id, reason="court", actor="test", held_at=NOW)
        store.put(ref.checked_key, document.encode(look.model_dump(mode="json")))
        store.put(ref.hold_key, hold.encode())
    store.put(older.tombstone_key, mark.encode())


@dataclass(frozen=True)
class Target:
    """One copy, and what a corruption may hit in it."""

    shelf: Shelf
    kind: str
    ref: BackupRef
    store: str

    def objects(self) -> tuple[list[str], list[str]]:
        """Return the keys of members, those of earlier backups, too, and of all else."""
        manifest = self.shelf.manifest(self.ref, self.store)
        members = sorted({manifest.key_of(one) for one in manifest.members})
        keys = {manifest.keys_of(one) for one in manifest.members}
        home = self.shelf.path(self.store, self.ref.prefix)
        beside = [f"{self.ref.prefix}/{path.name}" for path in home.glob("*.json")]
        return members, sorted({*keys, self.ref.keys_key(manifest.attempt), *beside})

    def data(self, key: str) -> bytes:
        return self.shelf.pristine[self.shelf.path(self.store, key)]

    def older(self, key: str) -> bytes | None:
        """Return the object in the place of `key` in the other backup of the same source."""
        (other,) = {*self.shelf.backups[self.kind]} - {self.ref}
        return self._twin(key, self.shelf.here, other)

    def another_attempt(self, key: str) -> bytes | None:
        """Return the object in the place of `key` of another attempt at the newer backup."""
        if self.kind not in REPEATED:
            return None
        return self._twin(key, self.shelf.elsewhere, self.shelf.backups[self.kind][1])

    def _twin(self, key: str, place: Installation, ref: BackupRef) -> bytes | None:
        inner = key.split("/")[3:]
        home = place.root / self.store / ref.prefix
        attempt = read_manifest(place.stores[self.store], ref).manifest.attempt
        path = home.joinpath(*([inner[0]] if len(inner) == 1 else [attempt, *inner[1:]]))
        data = path.read_bytes() if path.is_file() else None
        return None if data == self.data(key) else data


# What a corruption makes of an object; None says that it cannot be done to this one.
Corruption = Callable[[Target, str, random.Random], dict[str, bytes | None] | None]


def _flip(target: Target, key: str, chance: random.Random) -> dict[str, bytes | None]:
    data = bytearray(target.data(key))
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return {key: bytes(data)}


def _truncate(target: Target, key: str, chance: random.Random) -> dict[str, bytes | None]:
    data = target.data(key)
    return {key: data[: chance.choice([0, len(data) - 1, chance.randrange(len(data))])]}


def _extend(target: Target, key: str, chance: random.Random) -> dict[str, bytes | None]:
    data = target.data(key)
    more = chance.choice([b"\0", b"\n", b" ", chance.randbytes(chance.randrange(1, 99)), data])
    return {key: data + more}


def _swap(target: Target, key: str, chance: random.Random) -> dict[str, bytes | None] | None:
    members, others = target.objects()
    data = target.data(key)
    others = [one for one in (members if key in members else others) if target.data(one) != data]
    if not others:
        return None
    other = chance.choice(others)
    return {key: target.data(other), other: data}


def _delete(_target: Target, key: str, _chance: random.Random) -> dict[str, bytes | None]:
    return {key: None}


def _older(target: Target, key: str, _chance: random.Random) -> dict[str, bytes | None] | None:
    data = target.older(key)
    return None if data is None else {key: data}


def _another(target: Target, key: str, _chance: random.Random) -> dict[str, bytes | None] | None:
    data = target.another_attempt(key)
    return None if data is None else {key: data}


def _stray(target: Target, key: str, chance: random.Random) -> dict[str, bytes | None] | None:
    manifest = target.shelf.manifest(target.ref, target.store)
    stray = target.ref.member_key(manifest.attempt, f"stray{chance.randrange(9)}")
    return {stray: target.data(key)}


CORRUPTIONS: dict[str, Corruption] = {
    "flip": _flip,
    "truncate": _truncate,
    "extend": _extend,
    "swap": _swap,
    "delete": _delete,
    "older": _older,
    "another attempt": _another,
    "stray": _stray,
}


@dataclass(frozen=True)
class Case:
    """One corruption: which copy, what becomes of which objects."""

    target: Target
    word: str
    changes: Mapping[str, bytes | None]

    def __str__(self) -> str:
        target = self.target
        return f"{self.word} of {', '.join(self.changes)} in {target.store} ({target.ref})"

    @property
    def harmless(self) -> bool:
        """Whether nothing false is said afterwards: see `OPTIONAL`."""
        return all(
            data is None and key.rpartition("/")[2] in OPTIONAL
            for key, data in self.changes.items()
        )

    @property
    def shows_without_keys(self) -> bool:
        """Whether INTACT, which needs no key, has to find it.

        The keys of another attempt at the same backup are a sound document of this backup's.
        """
        return not (
            self.word == "another attempt"
            and any(key.endswith("keys.json") for key in self.changes)
        )


def cases(shelf: Shelf, chance: random.Random) -> Iterator[Case]:
    """Yield corruptions without end: all engines and all kinds get their share."""
    while True:
        for kind in KINDS:
            for word, corruption in CORRUPTIONS.items():
                target = Target(
                    shelf, kind, chance.choice(shelf.backups[kind]), chance.choice(STORES)
                )
                members, others = target.objects()
                # Documents are few, and each matters.
                key = chance.choice(members if members and chance.random() < 0.6 else others)
                changes = corruption(target, key, chance)
                if changes is not None:
                    yield Case(target, word, changes)


def examine(shelf: Shelf, case: Case, level: Level) -> list[str]:
    """Return the keys of what is found in the corrupted copy; nothing else may come out of it."""
    target = case.target
    paths = [shelf.path(target.store, key) for key in case.changes]
    for path, data in zip(paths, case.changes.values(), strict=True):
        if data is None:
            path.unlink()
        else:
            path.write_bytes(data)
    try:
        result = shelf.here.verifier.examine(target.ref, target.store, level=level)
    except BackupError as error:
        return [f"{type(error).__name__}: {error.problem}"]
    finally:
        shelf.mend(paths)
    assert result.sound == (not result.findings), (str(case), result)
    return [finding.key for finding in result.findings]


def test_no_intact_copy_is_reported(shelf: Shelf) -> None:
    for refs in shelf.backups.values():
        for ref in refs:
            for store in STORES:
                result = shelf.here.verifier.examine(ref, store, level=Level.PARSED)
                assert (result.level, result.findings) == (Level.PARSED, ()), ref


def test_every_corruption_is_found(shelf: Shelf, record_property: Any) -> None:
    chance = random.Random(SEED)
    missed: list[str] = []
    errors: list[str] = []
    unnamed: list[tuple[str, str]] = []
    seen: Counter[str] = Counter()
    found: Counter[str] = Counter()
    for number, case in enumerate(cases(shelf, chance)):
        if number >= COUNT:
            break
        level = chance.choice([Level.INTACT, Level.READABLE, Level.PARSED, Level.PARSED])
        findings = examine(shelf, case, level)
        seen[case.word] += 1
        found[case.target.kind] += 1
        if case.harmless:
            assert findings == [], f"{number}: {case}"
        elif not findings and (level > Level.INTACT or case.shows_without_keys):
            missed.append(f"{number}: {case} at {level.name}")
        elif findings and "Error" in findings[0]:
            errors.append(f"{number}: {case}: {findings}")
        elif findings and not set(findings) & set(case.changes):
            unnamed.append((case.word, f"{number}: {case}: {findings[:3]}"))
        if number % _INTACT_EVERY == 0:
            target = case.target
            result = shelf.here.verifier.examine(target.ref, target.store, level=level)
            assert result.findings == (), f"{number}: intact, and reported: {result.findings}"
    record_property("kinds", dict(seen))
    told = [f"{sum(seen.values())} corruptions: {dict(seen)}; by engine: {dict(found)}"]
    told += [f"not named: {len(unnamed)}", *(one for _, one in unnamed[:10])]
    print(*told, sep="\n")  # noqa: T201 - the measurement
    assert (missed, errors) == ([], [])
    # Of two attempts none is the wrong one: what does not fit to the other is named.
    assert {word for word, _ in unnamed} <= {"another attempt"}


def test_every_corruption_of_a_set_is_found(tmp_path: Path) -> None:
    stores = {name: LocalStore(name, tmp_path / name) for name in STORES}
    sets = []
    for store in stores.values():
        store.initialise()
    for age in range(3):
        of = set_id(at=NOW - timedelta(days=age), run=str(age))
        member = SetMember(
            backup_id=f"{of}-postgres", kind="full", consistent_at=NOW, verified=True
        )
        made = BackupSet.of(
            of, Component.DATABASE, {"postgres": member}, missing=(), recorded_at=NOW
        )
        sets.append(made)
        for store in stores.values():
            store.put(made.key, made.encode())
    checking = Checking(
        stores=stores,
        verifier=None,  # type: ignore[arg-type]  # sets need none
        rules=Rules(),
        catalog=MemoryCatalog(),
    )
    assert checking.doubtful_sets() == []
    chance = random.Random(SEED)
    for number in range(60):
        one, other = chance.sample(sets, 2)
        data = bytearray(one.encode())
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        damaged = chance.choice(
            [
                bytes(data),
                one.encode()[: chance.randrange(len(data))],
                one.encode() + b" ",
                other.encode(),
            ]
        )
        store = stores[chance.choice(STORES)]
        store.put(one.key, damaged)
        (told,) = checking.doubtful_sets()
        assert one.key in told, number
        assert store.name in told
        store.put(one.key, one.encode())
