"""Models: only what has changed is stored, whole files only, and restored as they were."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from neuroca_backup.engines import Dividing, RestoreTarget, Reusing
from neuroca_backup.engines.model_weights import ENGINE, earlier
from neuroca_backup.errors import (
    ConfigurationError,
    DamagedError,
    EmptySourceError,
    NotFoundError,
    TargetRefusedError,
    TransientError,
)
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.identity import BackupRef, part_name
from neuroca_backup.services import needs
from neuroca_backup.stages import compression
from neuroca_backup.trees import dumping, reading
from support import model_files
from support.reusing import Stand

MIB = 1024 * 1024
LARGE = 256 * 1024  # in these tests, the bytes from which on a file is a member of its own
FEW = 32 * 1024  # bytes, more than index, tar and small files of a model take
MODELS = ("gemma", "llama", "mistral")


def weights(seed: int, size: int = LARGE) -> bytes:
    return model_files.safetensors(weight=seed.to_bytes(8, "little") + os.urandom(size))


@dataclass
class Zoo:
    """Three models of two shards each in one root, backed up each by itself."""

    root: Path
    mode: str = "staged"
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.models = self.root / "models"
        self.options = {"roots": [str(self.models)], **self.options}
        self.stand = Stand(self.root, mode=self.mode, engine=ENGINE)
        self.stand._subject = self._subject  # type: ignore[method-assign]
        self.stand.backups._subject = self._subject
        self._subject_of_files = Stand._subject

    def _subject(self, name: str) -> Any:
        subject = self._subject_of_files(self.stand, name)
        model = next((one for one in self.names() if part_name("models", one) == name), "")
        given = ENGINE.options(self.options)
        given = ENGINE.part(given, model) if model else given  # type: ignore[attr-defined]
        return type(subject)(
            **{
                **{word: getattr(subject, word) for word in subject.__slots__},
                "endpoint": Endpoint.this_machine(),
                "options": given,
                "full_every": timedelta(days=90),
            }
        )

    def names(self) -> list[str]:
        return sorted(one.name for one in self.models.iterdir())

    def fill(self) -> None:
        for seed, name in enumerate(MODELS):
            home = self.models / name
            home.mkdir(parents=True)
            for shard in (1, 2):
                (home / f"model-0000{shard}-of-00002.safetensors").write_bytes(weights(seed))
            shards = {f"layer{n}": f"model-0000{n}-of-00002.safetensors" for n in (1, 2)}
            (home / "model.safetensors.index.json").write_bytes(model_files.shard_index(shards))
            (home / "config.json").write_text(f'{{"model": "{name}"}}\n')

    def back_up(self, name: str, *, age: timedelta = timedelta(), verify: bool = True) -> BackupRef:
        return self.stand.back_up(source=part_name("models", name), age=age, verify=verify)

    def written(self) -> dict[str, int]:
        """Return the bytes of members written to each store since the last call."""
        found = {name: store.written for name, store in self.stand.stores.items()}
        for store in self.stand.stores.values():
            store.written = 0
        return found

    def restored(self, ref: BackupRef, *only: str) -> dict[str, bytes]:
        return self.stand.restored(ref, only=only)

    def tree(self, *names: str) -> dict[str, bytes]:
        return {
            path.relative_to(self.models).as_posix(): path.read_bytes()
            for name in names
            for path in sorted((self.models / name).rglob("*"))
            if path.is_file()
        }


@pytest.fixture(autouse=True)
def _small_files_count_as_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuroca_backup.engines.model_weights.dump.LARGE_BYTES", LARGE)


@pytest.fixture(params=["staged", "streamed"])
def zoo(request: pytest.FixtureRequest, tmp_path: Path) -> Zoo:
    made = Zoo(tmp_path, mode=request.param)
    made.fill()
    return made


@pytest.fixture
def one(tmp_path: Path) -> Zoo:
    """Only one model, and only one pipeline."""
    made = Zoo(tmp_path)
    made.fill()
    for name in MODELS[1:]:
        shutil.rmtree(made.models / name)
    return made


def first_shard(zoo: Zoo, name: str = "gemma") -> Path:
    return zoo.models / name / "model-00001-of-00002.safetensors"


def test_the_second_backup_of_three_models_stores_only_the_files_that_have_changed(
    zoo: Zoo,
) -> None:
    firsts = {name: zoo.back_up(name, age=timedelta(days=7)) for name in MODELS}
    assert min(zoo.written().values()) > 6 * LARGE
    changed = weights(99)
    first_shard(zoo, "llama").write_bytes(changed)
    seconds = {name: zoo.back_up(name) for name in MODELS}
    for store, size in zoo.written().items():
        assert len(changed) <= size < len(changed) + FEW, store
    for name, ref in seconds.items():
        assert zoo.restored(ref) == zoo.tree(name)
        held = needs.origins(zoo.stand.manifest(ref))
        assert held == {firsts[name].backup_id}
        members = {member.name: member for member in zoo.stand.manifest(ref).members}
        second = members[f"files/{name}/model-00002-of-00002.safetensors"]
        assert second.origin is not None
        assert (members[f"files/{name}/{first_shard(zoo).name}"].origin is None) == (
            name == "llama"
        )


def test_without_what_nobody_refers_to_of_the_first_backups_the_second_ones_restore(
    zoo: Zoo,
) -> None:
    for name in MODELS:
        zoo.back_up(name, age=timedelta(days=7))
    first_shard(zoo, "llama").write_bytes(weights(99))
    seconds = {name: zoo.back_up(name) for name in MODELS}
    kept = {key for ref in seconds.values() for key in needs.objects(zoo.stand.manifest(ref))}
    dropped = 0
    for store in zoo.stand.stores.values():
        for found in list(store.list("model_weights")):
            if found.key not in kept:
                store.delete(found.key)
                dropped += 1
    assert dropped == 2 * (3 * 4 + 1 + 3)  # both stores: each first one's three documents and ...
    for name, ref in seconds.items():
        zoo.stand.verifier.verify(ref)
        assert zoo.restored(ref) == zoo.tree(name)


def test_the_models_are_found_when_they_are_asked_for(one: Zoo) -> None:
    assert isinstance(ENGINE, Dividing)
    assert isinstance(ENGINE, Reusing)
    options = ENGINE.options(one.options)
    (one.models / "tiny.gguf").write_bytes(model_files.gguf(weight=b"abc"))
    (one.models / ".locks").mkdir()
    (one.models / "half.incomplete").write_bytes(b"")
    (one.models / "latest").symlink_to("gemma")
    assert ENGINE.parts(Endpoint.this_machine(), options) == ("gemma", "tiny.gguf")
    ref = one.back_up("tiny.gguf")
    assert set(one.restored(ref)) == {"tiny.gguf"}
    assert ENGINE.summary(one.stand.manifest(ref)).startswith("1 models, 1 files")


def test_two_roots_with_a_model_of_the_same_name_are_refused(one: Zoo, tmp_path: Path) -> None:
    other = tmp_path / "others"
    (other / "gemma").mkdir(parents=True)
    options = ENGINE.options({"roots": [str(one.models), str(other)]})
    with pytest.raises(ConfigurationError, match=f"gemma is in {one.models} and in {other}"):
        ENGINE.parts(Endpoint.this_machine(), options)  # type: ignore[attr-defined]


def test_a_root_that_is_missing_or_empty_is_an_error_and_no_empty_backup(
    one: Zoo, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    here = Endpoint.this_machine()
    for name, error in (("absent", NotFoundError), ("empty", EmptySourceError)):
        options = ENGINE.options({"roots": [str(tmp_path / name)]})
        with pytest.raises(error, match=name):
            ENGINE.parts(here, options)  # type: ignore[attr-defined]
    (one.models / "hollow" / "inner").mkdir(parents=True)
    with pytest.raises(EmptySourceError, match="no file in hollow"):
        one.back_up("hollow")
    with pytest.raises(NotFoundError, match="no model gone"):
        ENGINE.dump(here, None, {**ENGINE.options(one.options), "model": "gone"})  # type: ignore[arg-type]


@pytest.mark.parametrize("root", ["models", "/srv/../etc", "/"])
def test_a_root_that_is_no_absolute_path_is_refused_by_name(root: str) -> None:
    with pytest.raises(ConfigurationError, match=f"options.roots.*{root}"):
        ENGINE.options({"roots": [root]})


# What is the same, and what only looks so


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of all files that are opened to be read, as they are."""
    paths: list[str] = []

    def recorded(found: Any, *given: Any, **words: Any) -> Any:
        paths.append(found.path)
        return reading.stable(found, *given, **words)

    monkeypatch.setattr(dumping, "stable", recorded)
    monkeypatch.setattr(earlier, "stable", recorded)
    return paths


@pytest.mark.parametrize("trust", ["stat", "content"])
def test_an_untouched_file_is_read_only_if_its_status_is_not_trusted(
    one: Zoo, trust: str, reads: list[str]
) -> None:
    one.options["trust"] = trust
    first = one.back_up("gemma", age=timedelta(days=7))
    shards = {path for path in reads if path.endswith("-of-00002.safetensors")}
    assert len(shards) == 2
    reads.clear()
    one.written()
    second = one.back_up("gemma")
    assert shards & set(reads) == (shards if trust == "content" else set())
    assert max(one.written().values()) < FEW
    assert needs.origins(one.stand.manifest(second)) == {first.backup_id}
    assert one.restored(second) == one.tree("gemma")


def test_a_touched_file_is_read_and_found_to_be_the_same(one: Zoo) -> None:
    one.back_up("gemma", age=timedelta(days=7))
    first_shard(one).touch()
    one.written()
    second = one.back_up("gemma")
    assert max(one.written().values()) < FEW
    assert one.restored(second) == one.tree("gemma")


def test_a_file_of_the_same_size_and_time_with_another_content_is_stored(one: Zoo) -> None:
    one.back_up("gemma", age=timedelta(days=7))
    path = first_shard(one)
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    with path.open("r+b") as file:  # the same inode, too
        file.write(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    second = one.back_up("gemma")
    assert one.restored(second)["gemma/" + path.name] == bytes(data)


def test_a_renamed_file_and_a_copy_are_found_by_their_digest(one: Zoo) -> None:
    one.back_up("gemma", age=timedelta(days=7))
    one.written()
    shutil.copytree(one.models / "gemma", one.models / "gemma" / "checkpoint-100")
    first_shard(one).rename(one.models / "gemma" / "renamed.safetensors")
    (one.models / "gemma" / "model.safetensors.index.json").unlink()
    second = one.back_up("gemma")
    assert max(one.written().values()) < FEW
    assert one.restored(second) == one.tree("gemma")


def test_modes_and_times_of_a_file_that_is_referred_to_are_those_of_today(one: Zoo) -> None:
    one.back_up("gemma", age=timedelta(days=7))
    path = first_shard(one)
    path.chmod(0o604)
    os.utime(path, ns=(1, 1_234_567_890_123_456_789))
    second = one.back_up("gemma")
    one.restored(second)
    (found,) = one.root.glob(f"restored-*/gemma/{path.name}")
    assert found.stat().st_mode & 0o777 == 0o604
    assert found.stat().st_mtime_ns == 1_234_567_890_123_456_789


def test_what_patterns_leave_out_is_left_out_and_sections_are_counted(one: Zoo) -> None:
    one.options |= {"artefacts": ["*.json"], "exclude": ["*-of-*"]}
    home = one.models / "gemma"
    (home / "checkpoint-7").mkdir()
    (home / "checkpoint-7" / "weights.pt").write_bytes(model_files.torch_zip(a=b"1"))
    (home / "notes.txt").write_text("not wanted")
    (home / "model.safetensors.index.json").unlink()
    ref = one.back_up("gemma")
    assert set(one.restored(ref)) == {"gemma/config.json", "gemma/checkpoint-7/weights.pt"}
    sections = one.stand.manifest(ref).dump.facts["sections"]
    assert {name: found["entries"] for name, found in sections.items()} == {
        "artefacts": 1,
        "checkpoints": 1,
    }


# What is torn


TORN: dict[str, Callable[[Path], Any]] = {
    "cut": lambda path: os.truncate(path, path.stat().st_size - 1),
    "emptied": lambda path: os.truncate(path, 0),
    "preallocated": lambda path: path.write_bytes(bytes(LARGE)),
}


@pytest.mark.parametrize("how", TORN)
def test_a_torn_file_is_an_error_that_names_it_and_the_earlier_backup_stays(
    zoo: Zoo, how: str
) -> None:
    first = zoo.back_up("gemma", age=timedelta(days=7))
    whole = zoo.tree("gemma")
    TORN[how](first_shard(zoo))
    with pytest.raises(TransientError, match=r"gemma/model-00001-of-00002\.safetensors is torn"):
        zoo.back_up("gemma")
    assert zoo.restored(first) == whole


def test_a_shard_that_is_missing_is_an_error_that_names_it_and_its_list(one: Zoo) -> None:
    first_shard(one).unlink()
    with pytest.raises(TransientError, match=r"index\.json is torn.*model-00001-of-00002"):
        one.back_up("gemma")


def test_a_cache_of_links_to_files_by_digest_is_checked_by_the_names_of_the_links(
    one: Zoo,
) -> None:
    home = one.models / "models--nca--memory"
    (home / "blobs").mkdir(parents=True)
    (home / "snapshots" / "main").mkdir(parents=True)
    data = model_files.safetensors(weight=b"abc")
    (home / "blobs" / "0a1b").write_bytes(data)
    link = home / "snapshots" / "main" / "model.safetensors"
    link.symlink_to("../../blobs/0a1b")
    index = home / "snapshots" / "main" / "model.safetensors.index.json"
    index.write_bytes(model_files.shard_index({"weight": "model.safetensors"}))
    ref = one.back_up(home.name)
    one.restored(ref)
    (found,) = one.root.glob("restored-*/models--*/snapshots/main/model.safetensors")
    assert (found.readlink(), found.read_bytes()) == (Path("../../blobs/0a1b"), data)
    (home / "blobs" / "0a1b").write_bytes(data[:-1])
    with pytest.raises(TransientError, match=r"snapshots/main/model\.safetensors is torn"):
        one.back_up(home.name)
    (home / "blobs" / "0a1b").unlink()
    with pytest.raises(TransientError, match="links to"):
        one.back_up(home.name)


def test_a_file_that_changes_between_its_check_and_its_reading_is_no_backup(
    one: Zoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    from neuroca_backup.engines.model_weights.structure import Structures  # noqa: PLC0415

    check = Structures.check

    def checked(self: Structures, found: Any) -> None:
        check(self, found)
        if found.path.endswith("-00001-of-00002.safetensors"):
            os.truncate(first_shard(one), LARGE + 1)

    monkeypatch.setattr(Structures, "check", checked)
    with pytest.raises(TransientError, match="changed while the backup was made"):
        one.back_up("gemma")


# Where it is restored to


def test_a_single_file_or_the_whole_model_is_restored_by_its_path(one: Zoo) -> None:
    ref = one.back_up("gemma")
    assert set(one.restored(ref, "gemma/config.json")) == {"gemma/config.json"}
    assert one.restored(ref, "gemma") == one.tree("gemma")
    for path, words in (
        ("llama", "llama is not in"),
        ("gemma/x", "has no gemma/x"),
        ("../x", "not in"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            one.restored(ref, path)


def test_a_restore_in_place_replaces_the_model_alone_and_keeps_what_was_there(zoo: Zoo) -> None:
    ref = zoo.back_up("gemma")
    expected = zoo.tree("gemma")
    first_shard(zoo).write_bytes(weights(5))
    ruined = zoo.tree("gemma")
    others = zoo.tree("llama")
    plan = zoo.stand.restores.plan(
        component=ref.component, source=ref.source, restore_id="in-place", backup_id=ref.backup_id
    )
    with pytest.raises(TargetRefusedError, match="gemma is there"):
        zoo.stand.restores.preflight(plan, RestoreTarget(Endpoint.this_machine()))
    target = RestoreTarget(Endpoint.this_machine(), replace=True)
    assert zoo.stand.restores.preflight(plan, target)
    fetched = zoo.stand.restores.fetch(plan)
    zoo.stand.restores.load(plan, fetched, target)
    assert zoo.tree("gemma") == ruined
    zoo.stand.restores.compare(plan, target)
    (note,) = zoo.stand.restores.publish(plan, fetched, target)
    assert "kept as" in note
    zoo.stand.restores.clear("in-place")
    assert zoo.tree("gemma") == expected
    assert zoo.tree("llama") == others
    (kept,) = [name for name in zoo.names() if name not in MODELS]
    assert {key.partition("/")[2]: data for key, data in zoo.tree(kept).items()} == {
        key.partition("/")[2]: data for key, data in ruined.items()
    }
    # What a restore has kept is no model.
    assert ENGINE.parts(Endpoint.this_machine(), ENGINE.options(zoo.options)) == MODELS  # type: ignore[attr-defined]


def test_a_sparse_file_is_streamed_with_little_memory_and_stays_sparse(
    one: Zoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cycle(size: int) -> Path:
        path = one.models / "gemma" / "sparse.bin"
        with path.open("wb") as file:
            file.write(b"begin")
            file.truncate(size)
            file.seek(size // 2)
            file.write(b"middle")
        ref = one.back_up("gemma")
        assert one.stand.manifest(ref).own_size < 3 * LARGE
        target = RestoreTarget(Endpoint.this_machine(one.root / f"place-{size}"))
        restore = {"restore_id": f"sparse-{size}", "backup_id": ref.backup_id}
        plan = one.stand.restores.plan(component=ref.component, source=ref.source, **restore)
        fetched = one.stand.restores.fetch(plan)
        one.stand.restores.load(plan, fetched, target)
        one.stand.restores.compare(plan, target)
        one.stand.restores.publish(plan, fetched, target)
        one.stand.restores.clear(plan.restore_id)
        return one.root / f"place-{size}" / "gemma" / "sparse.bin"

    # Zeros come out of zstd in pieces of up to 64 MiB, which would hide what grows with the file.
    monkeypatch.setattr(compression, "_SLICE_BYTES", 64)
    cycle(8 * MIB)  # what libraries take once
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = cycle(160 * MIB)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # KiB
    assert grown < 60 * 1024
    assert found.stat().st_size == 160 * MIB
    assert found.stat().st_blocks * 512 < MIB
    with found.open("rb") as file:
        assert file.read(5) == b"begin"
        file.seek(80 * MIB)
        assert file.read(6) == b"middle"


def test_damage_that_was_sealed_is_found_by_the_structure(one: Zoo) -> None:
    """As if a disk had given other bytes while the dump was read: every digest is right."""
    ref = one.back_up("gemma", verify=False)
    manifest = one.stand.manifest(ref)
    data = bytes(LARGE)

    def opened(name: str) -> Any:
        import io  # noqa: PLC0415

        return io.BytesIO(data if name.endswith("-00001-of-00002.safetensors") else b"")

    with pytest.raises(DamagedError):
        ENGINE.check(manifest, opened)
