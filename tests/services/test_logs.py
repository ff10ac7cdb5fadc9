"""Backups of logs over rotation, truncation, compression and deletion, restored byte for byte."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neuroca_backup.catalog.memory import MemoryCatalog
from neuroca_backup.connections import FileConnections
from neuroca_backup.engines import RestoreTarget
from neuroca_backup.engines.logs import ENGINE
from neuroca_backup.errors import ConfigurationError, NotFoundError, TargetRefusedError
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.identity import Component, set_id
from neuroca_backup.model.manifest import Manifest
from neuroca_backup.runtime import Runtime
from neuroca_backup.services.backup import BackupType
from neuroca_backup.services.inventory import read_manifest
from neuroca_backup.settings import Settings
from support.log_chain import Chain, Writer, lines_below, restore_to, tree_of
from support.wiring import local_places


@pytest.fixture
def writer(tmp_path: Path) -> Writer:
    return Writer(tmp_path / "machine/log")


@pytest.fixture
def chain(tmp_path: Path, writer: Writer) -> Chain:
    return Chain(tmp_path / "backups", {"application": [str(writer.folder)]})


def restored(chain: Chain, writer: Writer, *only: str, upto: int | None = None) -> Path:
    """Restore and return where the writer's folder is in what was restored."""
    return chain.restore(*only, upto=upto) / writer.folder.relative_to("/")


def test_a_week_of_rotation_is_restored_byte_for_byte_and_holds_every_line_once(
    chain: Chain, writer: Writer
) -> None:
    trees = []
    for day in range(8):
        writer.write(40, words=20)
        writer.rotate(copytruncate=day % 3 == 1)
        writer.write(7)
        if day % 2:
            writer.compress(delay=day % 4 == 1)
        if day > 4:
            writer.drop_oldest()
        chain.back_up()
        trees.append(tree_of(writer.folder))
        writer.write(5)
    for number, tree in enumerate(trees):
        assert tree_of(restored(chain, writer, upto=number)) == tree
    found = lines_below(restored(chain, writer, "everything"))
    seen = writer.written - 5  # the last lines came after the last backup
    assert found == dict.fromkeys(found, 1)
    assert {int(line.split()[1]) for line in found} == set(range(seen))


def test_what_was_backed_up_is_not_stored_again_after_a_rename_or_a_copy(
    chain: Chain, writer: Writer
) -> None:
    writer.write(200, words=50)
    chain.back_up()
    writer.write(10)
    writer.rotate()
    added = (writer.folder / "app.log.1").read_bytes().count(b"\n") - 200
    assert added == 10
    assert chain.back_up().facts["categories"]["application"]["new_lines"] == 10
    writer.write(3)
    chain.back_up()
    writer.rotate(copytruncate=True)
    assert chain.back_up().facts["new_bytes"] == 0


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(1, 60)),
        st.tuples(st.sampled_from(["rotate", "copytruncate", "no create", "truncate"])),
        st.tuples(st.sampled_from(["compress", "delaycompress", "drop", "delete", "back up"])),
        st.just(("back up",)),
    ),
    max_size=30,
)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(operations=OPERATIONS)
def test_any_sequence_of_writing_and_rotating_is_restored_and_holds_every_seen_line_once(
    tmp_path_factory: pytest.TempPathFactory, operations: list[tuple[str, int]]
) -> None:
    root = tmp_path_factory.mktemp("logs")
    writer = Writer(root / "machine/log")
    writer.write(1)
    chain = Chain(root / "backups", {"application": [str(writer.folder)]})
    chain.back_up()
    trees, seen = [tree_of(writer.folder)], set(lines_below(writer.folder))
    for name, *more in [*operations, ("write", 1), ("back up",)]:
        match name:
            case "write":
                writer.write(*more)
            case "rotate" | "copytruncate" | "no create":
                writer.rotate(copytruncate=name == "copytruncate", create=name != "no create")
            case "truncate" if writer.log.exists():
                writer.log.write_bytes(b"")
            case "compress" | "delaycompress":
                writer.compress(delay=name == "delaycompress")
            case "drop":
                writer.drop_oldest()
            case "delete":
                writer.log.unlink(missing_ok=True)
            case "back up" if any(writer.folder.iterdir()):
                chain.back_up()
                trees.append(tree_of(writer.folder))
                seen |= set(lines_below(writer.folder))
    for number in {len(trees) // 2, len(trees) - 1}:
        assert tree_of(restored(chain, writer, upto=number)) == trees[number]
    assert lines_below(restored(chain, writer, "everything")) == dict.fromkeys(seen, 1)


def test_a_quiet_day_is_an_empty_backup_that_restores(chain: Chain, writer: Writer) -> None:
    writer.write(20)
    assert not chain.back_up().manifest.dump.empty
    link = chain.back_up()
    assert link.manifest.dump.empty
    assert [member.name for member in link.manifest.members] == ["state.jsonl"]
    assert link.facts["fingerprint"] == chain.links[0].facts["fingerprint"]
    assert tree_of(restored(chain, writer)) == tree_of(writer.folder)


def test_counts_are_told_by_category(tmp_path: Path, writer: Writer) -> None:
    audit = Writer(writer.folder / "audit")
    chain = Chain(
        tmp_path / "backups",
        {"application": [str(writer.folder)], "audit": [f"{audit.folder}/*.log*"]},
    )
    writer.write(20)
    audit.write(7)
    chain.back_up()
    writer.rotate()
    writer.compress()
    audit.write(3)
    facts = chain.back_up().facts
    assert facts["categories"]["application"]["lines"] == 20
    size = audit.log.stat().st_size
    assert facts["categories"]["audit"] == {
        "files": 1, "bytes": size, "lines": 10, "new_bytes": size // 10 * 3, "new_lines": 3,
    }  # fmt: skip
    assert "30 lines" in ENGINE.summary(chain.links[-1].manifest)


def test_names_links_modes_owners_and_holes_come_back(chain: Chain, writer: Writer) -> None:
    folder = writer.folder
    writer.write(3)
    (folder / "empty").mkdir(mode=0o750)
    (folder / "zero.log").touch(mode=0o600)
    (folder / os.fsdecode(b"odd \xff\n name.log")).write_text("odd\n")
    (folder / "latest").symlink_to("app.log")
    (folder / "broken").symlink_to("/nowhere/at all")
    (folder / "second name.log").hardlink_to(writer.log)
    with (folder / "holes.log").open("wb") as file:
        file.seek(5_000_000)
        file.write(b"end\n")
    writer.log.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(writer.log, 12345, 23456)
    os.setxattr(writer.log, "user.origin", b"nca")
    chain.back_up()
    found = restored(chain, writer)
    assert tree_of(found) == tree_of(folder)
    assert (found / "second name.log").samefile(found / "app.log")
    assert os.getxattr(found / "app.log", "user.origin") == b"nca"
    assert (found / "holes.log").stat().st_blocks < 1000
    part = chain.restore(f"{folder}/second name.log") / folder.relative_to("/")
    assert [path.name for path in part.iterdir()] == ["second name.log"]
    assert (part / "second name.log").read_bytes() == writer.log.read_bytes()


def test_a_part_is_selected_by_category_path_or_glob(tmp_path: Path, writer: Writer) -> None:
    audit = Writer(writer.folder / "audit")
    chain = Chain(
        tmp_path / "backups", {"application": [str(writer.folder)], "audit": [str(audit.folder)]}
    )
    audit.written = 100  # content that no other log has
    for one in (writer, audit):
        one.write(5)
        one.rotate()
        one.write(5)
    chain.back_up()
    audit.rotated()[0][1].unlink()
    chain.back_up()

    def files(*only: str) -> list[str]:
        root = restored(chain, writer, *only)
        return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())

    assert files("audit") == ["audit/app.log"]
    assert files("application") == ["app.log", "app.log.1"]
    assert files(f"{writer.folder}/app.log") == ["app.log"]
    assert files(f"{writer.folder}/*.log") == ["app.log", "audit/app.log"]
    assert files(f"{writer.folder}/audit/", f"{writer.folder}/app.log.1") == [
        "app.log.1",
        "audit/app.log",
    ]
    ended = [name for name in files("everything", "audit") if ".ended-" in name]
    assert len(ended) == 1
    assert ended[0].startswith("audit/app.log.1.ended-20")
    assert len(files("everything")) == 4


def test_a_moment_means_the_newest_backup_not_after_it(chain: Chain, writer: Writer) -> None:
    trees = []
    for _ in range(3):
        writer.write(5)
        chain.back_up()
        trees.append(tree_of(writer.folder))
        writer.rotate()
        time.sleep(0.002)
    moments = [one.manifest.dump.consistent_at for one in chain.links]
    between = moments[1] + (moments[2] - moments[1]) / 2
    for until, expected in ((between, 1), (moments[1], 1), (moments[0], 0), (moments[2], 2)):
        found = chain.restore(until=until) / writer.folder.relative_to("/")
        assert tree_of(found) == trees[expected]
    target = RestoreTarget(Endpoint.this_machine(chain.root / "elsewhere"))
    (note, *_) = ENGINE.preflight(chain.restorable(until=between), target)
    assert chain.links[1].manifest.backup_id in note
    assert chain.links[2].manifest.backup_id in note
    with pytest.raises(ConfigurationError, match="begins at"):
        ENGINE.preflight(chain.restorable(until=moments[0] - timedelta(seconds=1)), target)


def test_a_restore_in_place_keeps_what_was_there_beside(chain: Chain, writer: Writer) -> None:
    writer.write(5)
    chain.back_up()
    before = tree_of(writer.folder)
    writer.write(5)
    (writer.folder / "new.log").write_text("new\n")
    after = tree_of(writer.folder)
    place = Endpoint.this_machine()
    with pytest.raises(TargetRefusedError):
        ENGINE.preflight(chain.restorable(), RestoreTarget(place))
    with pytest.raises(ConfigurationError, match="everything"):
        ENGINE.preflight(chain.restorable("everything"), RestoreTarget(place, replace=True))
    assert tree_of(writer.folder) == after
    notes = restore_to(chain.restorable(), place, replace=True)
    assert tree_of(writer.folder) == before
    (kept,) = writer.folder.parent.glob("*log.neuroca-replaced-*")
    assert tree_of(kept) == after
    assert any(kept.name in note for note in notes)
    assert chain.back_up().manifest.dump.empty  # what is kept beside is not backed up


def test_a_part_goes_back_to_its_place_and_the_rest_stays(chain: Chain, writer: Writer) -> None:
    writer.write(5)
    writer.rotate()
    writer.write(5)
    chain.back_up()
    wanted = (writer.folder / "app.log.1").read_bytes()
    (writer.folder / "app.log.1").write_text("spoilt\n")
    writer.write(5)
    kept = writer.log.read_bytes()
    only = f"{writer.folder}/app.log.1"
    restore_to(chain.restorable(only), Endpoint.this_machine(), replace=True)
    assert (writer.folder / "app.log.1").read_bytes() == wanted
    assert writer.log.read_bytes() == kept
    (aside,) = writer.folder.glob("*app.log.1.neuroca-replaced-*")
    assert aside.read_text() == "spoilt\n"


def test_a_whole_restore_in_place_moves_newer_files_of_a_glob_aside(
    tmp_path: Path, writer: Writer
) -> None:
    chain = Chain(tmp_path / "backups", {"application": [f"{writer.folder}/app.log*"]})
    (writer.folder / "other.txt").write_text("not listed\n")
    writer.write(5)
    chain.back_up()
    writer.rotate()
    writer.write(5)
    restore_to(chain.restorable(), Endpoint.this_machine(), replace=True)
    names = {path.name.split(".neuroca")[0].lstrip(".") for path in writer.folder.iterdir()}
    assert names == {"app.log", "app.log.1", "other.txt"}
    assert sorted(path.name for path in writer.folder.iterdir() if "neuroca" not in path.name) == [
        "app.log",
        "other.txt",
    ]
    assert lines_below(writer.folder)["line 0 memory "] == 2  # restored, and kept as app.log.1


def test_a_name_that_is_too_long_for_its_mark_is_cut(chain: Chain, writer: Writer) -> None:
    writer.write(1)
    long = writer.folder / ("ä" * 125 + ".log")
    long.write_text("line 1000 \n")
    chain.back_up()
    long.unlink()
    chain.back_up()
    assert lines_below(restored(chain, writer, "everything"))["line 1000 "] == 1


def test_the_recipe_for_stock_tools_restores_the_files(chain: Chain, writer: Writer) -> None:
    for _ in range(3):
        writer.write(20)
        writer.rotate()
        writer.compress(delay=True)
        chain.back_up()
    document = Path(__file__).parents[2] / "docs/reference/logs.md"
    recipe = document.read_text().partition("### With stock tools")[2]
    script = recipe.partition("```bash\n")[2].partition("```")[0]
    folder = chain.root / "by hand"
    folder.mkdir()
    for number, link in enumerate(chain.links):
        for archive in link.files.glob("content/*.tar"):
            shutil.copy(archive, folder / f"{number}-{archive.name}")
    shutil.copy(chain.links[-1].files / "state.jsonl", folder)
    subprocess.run(["bash", "-euc", script], cwd=folder, check=True)  # noqa: S607 - as a person would
    found = folder / "restored" / writer.folder.relative_to("/")
    for path in writer.folder.iterdir():
        assert (found / path.name).read_bytes() == path.read_bytes()


_counter = itertools.count()


class Bench:
    """A logs source in two local stores."""

    def __init__(self, root: Path, writer: Writer, *, mode: str) -> None:
        self.root, self.writer, self.mode = root, writer, mode
        self.due = datetime.now(UTC) - timedelta(hours=1)
        places = local_places(root)
        found = {
            "schedule": {"logs": "0 5 * * *"},
            "storage": places.storage,
            "retention": {},
            "encryption": places.encryption,
            "pipeline": {"mode": mode, "spool": str(root / "spool")},
            "sources": {
                "logs": {
                    "component": "logs",
                    "engine": "logs",
                    "options": {"application": [str(writer.folder)]},
                }
            },
        }
        self.runtime = Runtime.build(Settings.model_validate(found), FileConnections(environ={}))
        self.runtime.__dict__["catalog"] = MemoryCatalog()

    def back_up(self, backup_type: BackupType = BackupType.AUTO) -> Manifest:
        """Make a backup and verify it."""
        self.due += timedelta(minutes=1)
        ref = self.runtime.ref(set_id(at=self.due, run="scheduled"), "logs")
        self.runtime.backups.run(ref, mode=self.mode, backup_type=backup_type)
        self.runtime.verifier.verify(ref)
        return read_manifest(self.runtime.stores["primary"], ref).manifest

    def restore(self, **words: Any) -> Path:
        """Restore with every step into a new directory; return where the writer's folder is."""
        directory = self.root / f"restored-{next(_counter)}"
        restores, target = self.runtime.restores, RestoreTarget(Endpoint.this_machine(directory))
        plan = restores.plan(
            component=Component.LOGS,
            source="logs",
            restore_id=f"restore-logs-{next(_counter)}",
            **words,
        )
        try:
            restores.preflight(plan, target)
            fetched = restores.fetch(plan)
            restores.load(plan, fetched, target)
            restores.compare(plan, target)
            restores.publish(plan, fetched, target)
        finally:
            restores.clear(plan.restore_id)
        return directory / self.writer.folder.relative_to("/")


@pytest.mark.parametrize("mode", ["staged", "streamed"])
def test_a_chain_of_logs_goes_through_the_whole_pipeline(
    tmp_path: Path, writer: Writer, mode: str
) -> None:
    bench = Bench(tmp_path, writer, mode=mode)
    trees, manifests = [], []
    for _ in range(3):
        writer.write(100, words=30)
        writer.rotate()
        manifests.append(bench.back_up())
        trees.append(tree_of(writer.folder))
    assert [one.kind for one in manifests] == ["full", "incremental", "incremental"]
    quiet = bench.back_up()
    assert quiet.dump.empty
    assert quiet.kind == "incremental"
    assert tree_of(bench.restore()) == trees[2]
    assert tree_of(bench.restore(backup_id=manifests[0].backup_id)) == trees[0]
    moments = [one.dump.consistent_at for one in manifests]
    between = moments[1] + (moments[2] - moments[1]) / 2
    assert tree_of(bench.restore(until=between)) == trees[1]
    with pytest.raises(NotFoundError, match="can be restored to"):
        bench.restore(until=moments[0] - timedelta(days=1))


def test_after_a_damaged_state_the_next_backup_is_a_full_one(
    tmp_path: Path, writer: Writer
) -> None:
    bench = Bench(tmp_path, writer, mode="staged")
    writer.write(10)
    first = bench.back_up()
    (member,) = [one for one in first.members if one.name == "state.jsonl"]
    for name in ("primary", "secondary"):
        path = tmp_path / name / first.key_of(member)
        path.chmod(0o600)
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    writer.write(10)
    second = bench.back_up()
    assert second.kind == "full"
    assert any("full backup" in note for note in second.dump.notes)
    assert tree_of(bench.restore()) == tree_of(writer.folder)
