"""JSON Lines of vectors: they come back as they were, and a wrong line is named."""

from __future__ import annotations

import gzip
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroca_backup.errors import ConfigurationError
from neuroca_backup.vectors import columns, jsonlines
from neuroca_backup.vectors.model import Collection, Field

PLAIN = Collection(
    name="plain",
    key="id",
    fields=(
        Field(name="id", kind="int64"),
        Field(name="topic", kind="int8"),
        Field(name="words", kind="array", element="string"),
        Field(name="embedding", kind="float_vector", dimension=2),
        Field(name=jsonlines.DYNAMIC, kind="json"),
    ),
)
SEVERAL = Collection(
    database="other",
    name="several",
    key="id",
    partitions=("a", "b"),
    fields=(
        Field(name="id", kind="string"),
        Field(name="bits", kind="binary_vector", dimension=16),
        Field(name="sparse", kind="sparse_vector", nullable=True),
    ),
)
GOOD = {"id": 1, "values": [0.5, 1], "metadata": {"topic": 3, "words": ["x"], "more": {"a": 1}}}

_float32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
_text = st.text(st.characters(exclude_categories=("Cs",)), max_size=9)
_plain = st.fixed_dictionaries(
    {
        "id": st.integers(-(2**63), 2**63 - 1),
        "topic": st.integers(-128, 127),
        "words": st.lists(_text, max_size=3),
        "embedding": st.lists(_float32, min_size=2, max_size=2),
        jsonlines.DYNAMIC: st.dictionaries(
            _text.filter(lambda name: name not in {"id", "topic", "words", "embedding", "$meta"}),
            st.none() | st.integers(-(2**53), 2**53) | _text,
            max_size=2,
        ),
    }
)
_several = st.fixed_dictionaries(
    {
        "id": _text,
        "bits": st.binary(min_size=2, max_size=2),
        "sparse": st.none() | st.dictionaries(st.integers(0, 2**32 - 1), _float32, max_size=3),
    }
)


def lines(path: Path, *records: Any) -> Path:
    path.write_text("".join(f"{json.dumps(one)}\n" for one in records))
    return path


def described() -> Any:
    return json.loads(jsonlines.header({"plain": PLAIN}))


@given(st.lists(_plain, max_size=5), st.lists(_several, max_size=5), st.sampled_from(["", ".gz"]))
@settings(max_examples=60, deadline=None)
def test_what_is_written_comes_back(
    plain: list[dict[str, Any]], several: list[dict[str, Any]], suffix: str
) -> None:
    given_rows = {PLAIN.at.label: plain, SEVERAL.at.label: several}
    known = {PLAIN.at.label: PLAIN, SEVERAL.at.label: SEVERAL}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"vectors.jsonl{suffix}"
        with jsonlines.opened(path, "xb") as out:
            out.write(jsonlines.header(known))
            for label, rows in given_rows.items():
                batch = columns.from_rows(known[label], rows)
                for row in columns.to_rows(known[label], batch):
                    partition = "b" if known[label] is SEVERAL else ""
                    out.write(jsonlines.line_of(known[label], row, partition=partition))
        assert path.stat().st_mode & 0o777 == 0o600
        reader = jsonlines.Reader(path)
        assert reader.collections == known
        found: dict[str, list[Any]] = {label: [] for label in known}
        for label, partition, row in reader.rows():
            assert partition == ("b" if label == SEVERAL.at.label else "")
            found[label].append(row)
    for label, rows in given_rows.items():
        expected = columns.from_rows(known[label], rows)
        assert columns.from_rows(known[label], found[label]).equals(expected)


def test_a_file_without_a_header_is_read_for_a_store_that_has_the_collection(
    tmp_path: Path,
) -> None:
    path = lines(tmp_path / "a.jsonl", GOOD)
    assert jsonlines.Reader(path).collections == {}
    ((label, partition, row),) = jsonlines.Reader(path, {"plain": PLAIN}).rows()
    assert (label, partition, row["id"]) == ("plain", "", 1)
    assert row[jsonlines.DYNAMIC] == {"more": {"a": 1}}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"id": "one"}, "id 'one'"),
        ({"id": 2**63}, "id"),
        ({"id": True}, "id"),
        ({"values": [1.0]}, "1 numbers, the collection's have 2"),
        ({"values": [1.0, "x"]}, "finite"),
        ({"values": [1e39, 0]}, "finite"),
        ({"values": None}, "finite"),
        ({"metadata": {"topic": 300, "words": []}}, "topic"),
        ({"metadata": {"topic": 3}}, "lacks words"),
        ({"metadata": {"topic": 3, "words": [1]}}, "words"),
        ({"metadata": {"topic": 3, "words": [], "embedding": 1}}, "embedding"),
        ({"metadata": []}, "no object"),
        ({"collection": "elsewhere"}, "elsewhere"),
        ({"collection": []}, "collection"),
        ({"namespace": "b"}, "namespace"),
        ({"vector": []}, "unknown keys: vector"),
    ],
)
def test_a_wrong_line_is_named_with_what_is_wrong(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    path = lines(tmp_path / "a.jsonl", described(), GOOD, {**GOOD, **change})
    metadata = change.get("metadata")
    if metadata == []:
        path = lines(tmp_path / "a.jsonl", described(), GOOD, {**GOOD, "metadata": [1]})
    with pytest.raises(ConfigurationError, match=r"a\.jsonl, line 3 ") as caught:
        list(jsonlines.Reader(path).rows())
    assert words in str(caught.value)
    assert caught.value.facts["line"] == 3


@pytest.mark.parametrize("text", ["{", "[]", '{"id": NaN}', "nonsense"])
def test_a_line_that_is_no_json_object_is_named(tmp_path: Path, text: str) -> None:
    path = lines(tmp_path / "a.jsonl", described(), GOOD)
    with path.open("a") as file:
        file.write(f"{text}\n")
    with pytest.raises(ConfigurationError, match="line 3"):
        list(jsonlines.Reader(path).rows())


def test_a_header_of_a_later_version_is_refused(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", {**described(), "neuroca_vectors": 2})
    with pytest.raises(ConfigurationError, match="version 2"):
        jsonlines.Reader(path)


def test_a_compressed_file_that_ends_early_is_not_taken_for_a_short_one(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    whole = gzip.compress(b"".join(json.dumps(one).encode() + b"\n" for one in [described(), GOOD]))
    path.write_bytes(whole[:-12])
    with pytest.raises(ConfigurationError, match="to its end"):
        list(jsonlines.Reader(path).rows())


def test_a_file_that_exists_is_never_overwritten_and_a_failed_one_is_removed(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.jsonl"

    def fail() -> None:
        with jsonlines.opened(path, "xb") as out:
            out.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not path.exists()
    path.write_text("mine")
    with pytest.raises(ConfigurationError, match="exists"), jsonlines.opened(path, "xb"):
        pass
    assert path.read_text() == "mine"
