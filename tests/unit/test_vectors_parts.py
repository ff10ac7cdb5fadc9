"""Parquet parts: whatever rows a collection may have, they come back bit for bit."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroca_backup.errors import DamagedError
from neuroca_backup.streams import DigestWriter, RawStream
from neuroca_backup.vectors import columns, parts
from neuroca_backup.vectors.evidence import Evidence, found, nearness
from neuroca_backup.vectors.model import Collection, Field, Index, Name

WIDE = Collection(
    name="wide",
    key="id",
    fields=(
        Field(name="id", kind="int64"),
        Field(name="text", kind="string", nullable=True),
        Field(name="document", kind="json", nullable=True),
        Field(name="numbers", kind="array", element="double"),
        Field(name="small", kind="int8"),
        Field(name="exact", kind="double"),
        Field(name="near", kind="float"),
        Field(name="yes", kind="bool"),
        Field(name="vector", kind="float_vector", dimension=3),
        Field(name="bits", kind="binary_vector", dimension=16),
        Field(name="half", kind="float16_vector", dimension=2, nullable=True),
        Field(name="sparse", kind="sparse_vector", nullable=True),
    ),
    indexes=(
        Index(field="vector", kind="HNSW", metric="l2"),
        Index(field="bits", kind="BIN_FLAT", metric="hamming"),
    ),
)
SCHEMA = columns.schema_of(WIDE)

_float32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
_text = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | _text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3),
    max_leaves=6,
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.integers(-(2**63), 2**63 - 1),
            "text": st.none() | _text,
            "document": st.dictionaries(_text, _json, max_size=3),
            "numbers": st.lists(st.floats(allow_nan=False), max_size=3),
            "small": st.integers(-128, 127),
            "exact": st.floats(allow_nan=False),
            "near": _float32,
            "yes": st.booleans(),
            "vector": st.lists(_float32, min_size=3, max_size=3),
            "bits": st.binary(min_size=2, max_size=2),
            "half": st.none() | st.binary(min_size=4, max_size=4),
            "sparse": st.none() | st.dictionaries(st.integers(0, 2**32 - 1), _float32, max_size=3),
        }
    ),
    min_size=1,
    max_size=12,
)


class Members:
    """A sink in memory that takes bytes forward only."""

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}

    @contextmanager
    def member(self, name: str) -> Iterator[BinaryIO]:
        out = io.BytesIO()
        yield DigestWriter(out)
        self.data[name] = out.getvalue()


class Forward(RawStream):
    """A stream that cannot seek."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._data.read(size)


def written(*batches: pa.RecordBatch) -> dict[str, bytes]:
    sink = Members()
    assert parts.write(sink, "folder", SCHEMA, iter(batches)) == sum(b.num_rows for b in batches)
    return sink.data


def row(number: int) -> dict[str, Any]:
    return {
        "id": number,
        "text": f"memory {number}",
        "document": {"n": number},
        "numbers": [],
        "small": 1,
        "exact": 0.1,
        "near": 0.5,
        "yes": True,
        "vector": [number, 0, 1],
        "bits": bytes([number % 256, 0]),
        "half": None,
        "sparse": None,
    }


@given(ROWS)
@settings(max_examples=60, deadline=None)
def test_rows_of_every_kind_come_back_bit_for_bit(rows: list[dict[str, Any]]) -> None:
    batch = columns.from_rows(WIDE, rows)
    (data,) = written(batch).values()
    (again,) = parts.read_stream(Forward(data), "a", SCHEMA)
    assert again.equals(batch)
    back = list(columns.to_rows(WIDE, again))
    assert columns.from_rows(WIDE, back).equals(batch)
    for before, after in zip(rows, back, strict=True):
        assert after["document"] == before["document"]
        assert after["bits"] == before["bits"]
        assert after["half"] == before["half"]
        assert after["vector"].tolist() == before["vector"]


@given(ROWS)
@settings(max_examples=20, deadline=None)
def test_the_same_row_has_the_same_digest_and_a_changed_one_another(
    rows: list[dict[str, Any]],
) -> None:
    batch = columns.from_rows(WIDE, rows)
    again = columns.from_rows(WIDE, list(columns.to_rows(WIDE, batch)))
    assert columns.digest(WIDE, batch, 0) == columns.digest(WIDE, again, 0)
    for change in (
        {"vector": np.nextafter(np.float32(rows[0]["vector"]), np.float32(np.inf)).tolist()},
        {"bits": bytes([rows[0]["bits"][0] ^ 1, rows[0]["bits"][1]])},
        {"document": {**rows[0]["document"], "new": 1, "other": 2}},
        {"yes": not rows[0]["yes"]},
    ):
        changed = columns.from_rows(WIDE, [{**rows[0], **change}])
        assert columns.digest(WIDE, changed, 0) != columns.digest(WIDE, batch, 0), change


def test_json_that_means_the_same_has_the_same_digest() -> None:
    one, other = (
        columns.from_rows(WIDE, [{**row(1), "document": document}])
        for document in ({"a": 1, "b": [None]}, {"b": [None], "a": 1})
    )
    assert columns.digest(WIDE, one, 0) == columns.digest(WIDE, other, 0)


def test_a_vector_of_another_dimension_is_never_taken() -> None:
    with pytest.raises(ValueError, match="2 of 3"):
        columns.from_rows(WIDE, [{**row(1), "vector": [1.0, 2.0]}])


def test_parts_are_bounded_and_every_row_is_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = [columns.from_rows(WIDE, [row(n) for n in range(f, f + 10)]) for f in (0, 10, 20)]
    monkeypatch.setattr(parts, "PART_BYTES", batches[0].nbytes + batches[1].nbytes)
    found = written(*batches)
    assert list(found) == ["folder/part-00000.parquet", "folder/part-00001.parquet"]
    assert parts.part_names([*found, "folder/x/part-00000.parquet"], "folder") == list(found)
    rows = [
        key
        for name, data in found.items()
        for batch in parts.read_stream(Forward(data), name, SCHEMA)
        for key in columns.keys_of(batch, WIDE)
    ]
    assert rows == list(range(30))


def test_a_part_holds_only_types_that_any_reader_knows(tmp_path: Path) -> None:
    (data,) = written(columns.from_rows(WIDE, [row(1)])).values()
    (tmp_path / "part").write_bytes(data)
    assert pq.read_schema(tmp_path / "part").field("vector").type == pa.list_(
        pa.field("element", pa.float32())
    )


@pytest.mark.parametrize("at", [0.3, 0.5, 0.9])
def test_a_flipped_bit_in_a_part_is_found(at: float) -> None:
    (data,) = written(columns.from_rows(WIDE, [row(n) for n in range(200)])).values()
    place = int(len(data) * at)
    harmed = data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]
    with pytest.raises(DamagedError, match="part-x"):
        list(parts.read_stream(Forward(harmed), "part-x", SCHEMA))


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1" * 100])
def test_what_is_no_parquet_file_is_damage(data: bytes) -> None:
    with pytest.raises(DamagedError, match="part-x"):
        list(parts.read_stream(Forward(data), "part-x", SCHEMA))


def test_a_part_of_another_collection_is_damage() -> None:
    (data,) = written(columns.from_rows(WIDE, [row(1)])).values()
    other = WIDE.model_copy(update={"fields": WIDE.fields[:-1]})
    with pytest.raises(DamagedError, match="fields"):
        list(parts.read_stream(Forward(data), "part-x", columns.schema_of(other)))


def test_a_check_never_holds_more_than_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "_LARGEST_PART", 1000)
    with pytest.raises(DamagedError, match="larger"):
        list(parts.read_stream(Forward(b"\0" * 5_000_000), "part-x", SCHEMA))


@pytest.mark.parametrize("name", ["..", ".", "a/b", "é"])
def test_the_folder_of_a_strange_name_stays_below_the_others(name: str) -> None:
    folder = parts.folder_of(Name("", name))
    assert folder.startswith("collections/_/")
    assert folder.count("/") == 2
    assert folder.rpartition("/")[2] not in {"", ".", ".."}


def test_the_same_rows_give_the_same_evidence_however_they_are_batched() -> None:
    rows = [row(n) for n in range(600)]
    one, other = (Evidence(WIDE, probed="") for _ in range(2))
    one.see(columns.from_rows(WIDE, rows), "")
    for first in range(0, 600, 50):
        other.see(columns.from_rows(WIDE, rows[first : first + 50]), "")
    assert one.facts() == other.facts()
    assert len(one.facts()["samples"]) == 256
    first = one.facts()["probes"][0]
    assert first["neighbours"] == list(range(10))
    assert first["nearness"][:3] == [0.0, -1.0, -4.0]


def test_neighbours_that_are_as_near_count_and_farther_ones_do_not() -> None:
    probe, vectors = np.zeros(3, np.float32), np.eye(3, dtype=np.float32)
    assert found("l2", [-1.0, -1.0], probe, vectors) == 3
    assert found("l2", [0.0, -0.5], probe, vectors) == 0


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
def test_a_vector_of_zeros_is_near_to_something(metric: str) -> None:
    near = nearness(metric, np.zeros(3, np.float32), np.eye(3, dtype=np.float32))
    assert near is not None
    assert np.isfinite(near).all()


def test_a_metric_that_is_not_known_is_not_guessed() -> None:
    assert nearness("tanimoto", np.zeros(3, np.float32), np.eye(3, dtype=np.float32)) is None
