"""Backups of logs over rotation, truncation, compression and deletion, restored byte for byte."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.log_chain import Chain, Writer, lines_below, tree_of


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
    max_examples=60,
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
