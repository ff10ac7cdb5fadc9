"""The parts of the logs engine by themselves: lists, pieces, contents, states, selections."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import tarfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from neuroca_backup.engines.logs import ENGINE, compressed, listing, pieces, reading, state
from neuroca_backup.engines.logs.content import Content, Contents, Inflated, head_size
from neuroca_backup.engines.logs.listing import Root
from neuroca_backup.engines.logs.pieces import Piece, PieceWriter
from neuroca_backup.errors import ConfigurationError, DamagedError, NotFoundError
from neuroca_backup.trees.entries import Entry, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator


class Members:
    """A sink in memory; what raised is not there."""

    def __init__(self) -> None:
        self.found: dict[str, bytes] = {}

    @contextmanager
    def member(self, name: str) -> Iterator[BinaryIO]:
        out = io.BytesIO()
        yield out
        self.found[name] = out.getvalue()

    def tree(self, name: str) -> None:  # noqa: ARG002 - the protocol
        return


def piece_of(data: bytes) -> Piece:
    return Piece(hashlib.sha256(data).hexdigest(), len(data))


def content_of(data: bytes, *cuts: int) -> Content:
    stream = io.BytesIO(data)
    return reading.divide(stream.readinto, [Piece("", size) for size in cuts])


# --- options and lists ---


@pytest.mark.parametrize(
    ("given_options", "told"),
    [
        ({}, "list at least one path"),
        ({"application": []}, "list at least one path"),
        ({"application": ["var/log"]}, "options.application.0.path"),
        ({"audit": ["/var/../etc"]}, "options.audit.0.path"),
        ({"metrics": [{"path": "/var/log", "option": True}]}, "options.metrics.0.option"),
        ({"logs": ["/var/log"]}, "options.logs"),
        ({"application": ["/"]}, "options.application.0.path"),
    ],
)
def test_impossible_options_are_named(given_options: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ENGINE.options(given_options)
    assert told in str(caught.value)


def test_the_nearest_root_gives_a_path_its_category(tmp_path: Path) -> None:
    for name in ("app.log", "audit/a.log", "audit/deep/b.log", "perf/p.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = listing.take(
        [
            Root("audit", f"{tmp_path}/audit"),
            Root("application", str(tmp_path)),
            Root("performance", f"{tmp_path}/**/*.csv"),
        ]
    )
    categories = {Path(one.path).name: one.category for one in found.files}
    assert categories == {
        "app.log": "application",
        "a.log": "audit",
        "b.log": "audit",
        "p.csv": "performance",
    }


def test_globs_and_exclusions_select_what_they_say(tmp_path: Path) -> None:
    for name in ("a.log", "b.log", "a.txt", "x/a.log", "x/y/a.log", "x/y/.hidden.log", "z/q.log"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    def names(pattern: str, *exclude: str) -> list[str]:
        found = listing.take([Root("audit", f"{tmp_path}/{pattern}")], exclude)
        return [str(Path(one.path).relative_to(tmp_path)) for one in found.files]

    assert names("*.log") == ["a.log", "b.log"]
    assert names("[b]*.log") == ["b.log"]
    assert names("*/a.log") == ["x/a.log"]
    assert names("**/a.log") == ["a.log", "x/a.log", "x/y/a.log"]
    assert names("x") == ["x/a.log", "x/y/.hidden.log", "x/y/a.log"]
    assert names("x", "y") == ["x/a.log"]
    assert names("x", "*/.hidden.*") == ["x/a.log", "x/y/a.log"]
    assert names("**/*.log", f"{tmp_path}/x*") == ["a.log", "b.log", "z/q.log"]
    with pytest.raises(NotFoundError, match="none"):
        names("none*")
    with pytest.raises(NotFoundError, match="matches nothing"):
        names("a.log", "a.log")


def test_an_optional_path_may_be_absent_and_a_link_is_followed_only_as_a_root(
    tmp_path: Path,
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/a.log").touch()
    (tmp_path / "real/inner").symlink_to("/etc")
    (tmp_path / "current").symlink_to("real")
    found = listing.take(
        [Root("audit", f"{tmp_path}/current"), Root("audit", f"{tmp_path}/no", optional=True)]
    )
    assert sorted(found.found) == [
        f"{tmp_path}/{name}" for name in ("current", "real", "real/a.log", "real/inner")
    ]
    by_glob = listing.take([Root("audit", f"{tmp_path}/curr*")])
    assert sorted(by_glob.found) == [f"{tmp_path}/current"]
    (tmp_path / "real/a.log").unlink()
    (tmp_path / "real/inner").unlink()
    (tmp_path / "real").rmdir()
    with pytest.raises(NotFoundError, match="current"):
        listing.take([Root("audit", f"{tmp_path}/current")])


def test_of_two_roots_that_match_one_path_the_closer_gives_its_category(tmp_path: Path) -> None:
    for name in ("audit.log", "app.log", "app-slow.log"):
        (tmp_path / name).touch()
    found = listing.take(
        [
            Root("application", f"{tmp_path}/*.log"),
            Root("audit", f"{tmp_path}/audit.log"),
            Root("performance", f"{tmp_path}/*-slow.log"),
        ]
    )
    assert {Path(one.path).name: one.category for one in found.files} == {
        "audit.log": "audit",
        "app.log": "application",
        "app-slow.log": "performance",
    }


def test_sockets_and_pipes_are_counted_and_what_restores_keep_is_left_alone(
    tmp_path: Path,
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "a.log").touch()
    (tmp_path / "a.log.neuroca-replaced-20261123T020000Z").touch()
    found = listing.take([Root("audit", str(tmp_path))])
    assert [Path(one.path).name for one in found.files] == ["a.log"]
    assert found.special == {f"{tmp_path}/pipe"}


# --- pieces ---


def test_pieces_are_stored_once_and_in_as_many_archives_as_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pieces, "ARCHIVE_BYTES", 2000)
    sink = Members()
    texts = [b"%d " % number * 300 for number in range(9)]
    with PieceWriter(sink, [piece_of(texts[4]).sha256]) as writer:
        for data in [*texts, *texts]:
            writer.add(memoryview(data), piece_of(data))
    assert writer.count == 8
    assert writer.archives == len(sink.found) > 2
    found: list[Piece] = []
    for number in range(1, writer.archives + 1):
        name = pieces.archive_name(number)
        data = sink.found[name]
        found += list(pieces.checked(io.BytesIO(data), name=name))
        for placed in pieces.listed(io.BytesIO(data), name=name):
            assert piece_of(data[placed.offset :][: placed.piece.size]) == placed.piece
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            assert [one.name for one in tar] == [
                f"pieces/{one.piece.sha256}" for one in pieces.listed(io.BytesIO(data), name=name)
            ]
    assert found == [piece_of(data) for data in texts if data is not texts[4]]


def test_an_archive_that_could_not_be_ended_is_no_member() -> None:
    sink = Members()

    def fail() -> None:
        with PieceWriter(sink) as writer:
            writer.add(memoryview(b"abc"), piece_of(b"abc"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert sink.found == {}


def test_any_cut_of_an_archive_is_damage() -> None:
    sink = Members()
    with PieceWriter(sink) as writer:
        for data in (b"a" * 600, b"b" * 512, b"c"):
            writer.add(memoryview(data), piece_of(data))
    (name, whole), *_ = sink.found.items()
    for end in range(0, len(whole), 64):
        with pytest.raises(DamagedError, match="00001"):
            list(pieces.checked(io.BytesIO(whole[:end]), name=name))
        with pytest.raises(DamagedError, match="00001"):
            list(pieces.listed(io.BytesIO(whole[:end]), name=name))


# --- contents ---


@given(data=st.binary(max_size=400), cuts=st.lists(st.integers(1, 90), max_size=6))
def test_a_content_is_cut_where_it_is_told_and_is_all_of_the_bytes(
    data: bytes, cuts: list[int]
) -> None:
    found = content_of(data, *cuts)
    assert found.size == len(data) == sum(piece.size for piece in found.pieces)
    assert found.sha256 == hashlib.sha256(data).hexdigest()
    assert found.lines == data.count(b"\n")
    position = 0
    for piece in found.pieces:
        assert piece == piece_of(data[position : position + piece.size])
        position += piece.size


@given(data=st.binary(min_size=1, max_size=300), more=st.binary(max_size=300))
def test_what_continues_a_content_is_recognised_by_how_it_begins(data: bytes, more: bytes) -> None:
    contents = Contents()
    known = content_of(data)
    contents.add(known)
    cuts = contents.beginning_like(data + more, len(data + more))
    assert cuts == known.pieces
    longer = content_of(data + more, *(piece.size for piece in cuts))
    assert known.sha256 in set(contents.continued_by(longer.pieces))


def test_a_content_that_only_begins_alike_is_not_continued() -> None:
    contents = Contents()
    contents.add(content_of(b"17\n"))
    assert contents.beginning_like(b"171\n", 4) == ()
    long = b"the same banner\n" * 1000
    contents.add(content_of(long + b"one"))
    other = content_of(long + b"two")
    assert contents.beginning_like(long[:4096], other.size)
    assert list(contents.continued_by(other.pieces)) == []


def test_of_many_logs_that_begin_alike_only_some_are_tried() -> None:
    contents = Contents()
    banner = b"#" * 5000
    for number in range(100):
        contents.add(content_of(banner + b"%d" % number * 10))
    (alike,) = contents._by_head.values()
    assert len(alike) == 16


def test_the_head_of_a_file_is_a_power_of_two_at_most_4096() -> None:
    assert [head_size(size) for size in (0, 1, 3, 4, 4095, 4096, 10**9)] == [
        0, 1, 2, 4, 2048, 4096, 4096,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "compress", [gzip.compress, bz2.compress, lzma.compress, zstandard.ZstdCompressor().compress]
)
def test_what_is_in_a_compressed_log_is_recognised(tmp_path: Path, compress: object) -> None:
    text = b"".join(b"line %d\n" % number for number in range(5000))
    contents = Contents()
    known = content_of(text[:30_000], 10_000)
    contents.add(known)
    path = tmp_path / "app.log.1.x"
    data = compress(text)  # type: ignore[operator]
    path.write_bytes(data)
    found_path = listing.Found(str(path), "audit", path.stat(), str(path))
    with reading.opened(found_path) as descriptor:
        assert descriptor is not None
        reader = compressed.reader_for(reading.beginning(descriptor))
        assert reader is not None
        found = compressed.look_into(descriptor, content_of(data), reader, contents)
        other = compressed.look_into(descriptor, content_of(data + b"x"), reader, contents)
    assert found is not None
    assert (found.size, found.lines) == (len(text), 5000)
    assert list(contents.continued_by(found.pieces)) == [known.sha256]
    assert other is None  # the file is no longer what was read
    assert compressed.reader_for(text) is None


# --- states ---

NAMES = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20
).filter(lambda name: name not in {".", ".."})
ODD_NAMES = st.one_of(
    NAMES, st.binary(min_size=1, max_size=20).map(lambda data: data.replace(b"/", b"_"))
    .map(lambda data: os.fsdecode(data.replace(b"\0", b"_"))).filter(lambda n: n not in {".", ".."})
)  # fmt: skip
COUNTS = st.integers(0, 2**60)


@st.composite
def entries(draw: st.DrawFn) -> state.Entry:
    kind = draw(st.sampled_from([Kind.FILE, Kind.DIRECTORY, Kind.SYMLINK]))
    tree = Entry(
        path="/".join(draw(st.lists(ODD_NAMES, min_size=1, max_size=4))),
        kind=kind,
        mode=draw(st.integers(0, 0o7777)),
        uid=draw(COUNTS),
        gid=draw(COUNTS),
        mtime_ns=draw(st.integers(-(2**60), 2**60)),
        section=draw(st.sampled_from(["application", "audit"])),
        device=draw(COUNTS),
        inode=draw(COUNTS),
        target=draw(NAMES) if kind is Kind.SYMLINK else "",
    )
    if kind is not Kind.FILE:
        return state.Entry(tree)
    content = content_of(draw(st.binary(max_size=50)), *draw(st.lists(st.integers(1, 9))))
    if draw(st.booleans()):
        content = replace(content, inflated=Inflated(draw(COUNTS), "ab" * 32, draw(COUNTS)))
    return state.Entry(
        replace(tree, size=content.size, sha256=content.sha256),
        content,
        settled=draw(st.booleans()),
        last_seen=draw(st.sampled_from(["", "2026-11-23T02:00:00+00:00"])),
    )


@given(found=st.lists(entries(), max_size=5))
def test_a_state_is_read_as_it_was_written(found: list[state.Entry]) -> None:
    out = io.BytesIO()
    state.write(out, found)
    data = out.getvalue()
    assert data.isascii()
    assert list(state.read(io.BytesIO(data))) == found
    for lines in range(len(found) + 2):
        with pytest.raises(DamagedError):
            list(state.read(io.BytesIO(b"".join(data.splitlines(keepends=True)[:lines]))))
    with pytest.raises(DamagedError):
        list(state.read(io.BytesIO(data[:-1])))
    with pytest.raises(DamagedError):
        list(state.read(io.BytesIO(data + b'{"entries": 0}\n')))


def test_a_fingerprint_tells_contents_and_modes_but_no_times() -> None:
    tree = Entry(path="a", kind=Kind.DIRECTORY, mode=0o755, uid=0, gid=0, mtime_ns=1)
    one = state.fingerprint([state.Entry(tree)])
    assert state.fingerprint([state.Entry(replace(tree, mtime_ns=2, ctime_ns=3))]) == one
    assert state.fingerprint([state.Entry(replace(tree, mode=0o700))]) != one
