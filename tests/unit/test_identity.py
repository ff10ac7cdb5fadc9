from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuroca_backup.errors import ConfigurationError
from neuroca_backup.model.identity import (
    BackupRef,
    Component,
    attempt_token,
    is_source_name,
    set_id,
)

times = st.datetimes(
    min_value=datetime(2000, 1, 1),  # noqa: DTZ001 - made aware below
    max_value=datetime(2100, 1, 1),  # noqa: DTZ001 - as above
    timezones=st.integers(-14 * 60, 14 * 60).map(
        lambda minutes: timezone(timedelta(minutes=minutes))
    ),
)
sources = st.from_regex(r"[a-z][a-z0-9_]{0,62}", fullmatch=True)


@given(at=times, run=st.text(), source=sources, component=st.sampled_from(Component))
def test_a_reference_gives_back_what_it_was_made_of(
    at: datetime, run: str, source: str, component: Component
) -> None:
    of = set_id(at=at, run=run)
    ref = BackupRef.of(of, component, source)
    assert (ref.set_id, ref.source, ref.component) == (of, source, component)
    assert ref.time == at.astimezone(UTC).replace(microsecond=0)
    assert BackupRef(backup_id=ref.backup_id, component=component) == ref
    for key in (ref.manifest_key, ref.keys_key("a1b2c3d4"), ref.member_key("a1b2c3d4", "m/n")):
        assert key.startswith(f"{component}/{source}/{ref.backup_id}/")


@given(first=times, second=times, run=st.text())
def test_ids_sort_by_time_whatever_the_time_zone(
    first: datetime, second: datetime, run: str
) -> None:
    early, late = sorted([first, second])
    if late - early >= timedelta(seconds=1):
        assert set_id(at=early, run=run) < set_id(at=late, run=run)


@given(at=times, run=st.text(), other=st.text())
def test_the_same_run_has_the_same_id_and_another_one_another(
    at: datetime, run: str, other: str
) -> None:
    assert set_id(at=at, run=run) == set_id(at=at, run=run)
    assert (set_id(at=at, run=run) == set_id(at=at, run=other)) == (run == other)


def test_a_naive_time_is_refused() -> None:
    with pytest.raises(ValueError, match="aware"):
        set_id(at=datetime(2026, 1, 1), run="x")  # noqa: DTZ001 - that is the point


@pytest.mark.parametrize(
    "text",
    [
        "",
        "20261123T020000Z-1f0c9a3e",
        "20261123T020000Z-1f0c9a3e-",
        "20261123T020000Z-1f0c9a3e-Postgres",
        "20261123T020000Z-1F0C9A3E-postgres",
        "20261123T020000Z-1f0c9a3e-post/gres",
        "20261123T020000Z-1f0c9a3e-..",
        "20261123T020000Z-1f0c9a3e-postgres\n",
        "20261323T020000Z-1f0c9a3e-postgres",
        "20261123T250000Z-1f0c9a3e-postgres",
        "٢٠٢٦1123T020000Z-1f0c9a3e-postgres",  # noqa: RUF001 - digits of another script
        "20261123T020000Z-1f0c9a3e-" + "a" * 64,
    ],
)
def test_what_is_no_backup_id_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        BackupRef(backup_id=text, component=Component.DATABASE)
    assert repr(text) in caught.value.problem
    assert "20261123T020000Z-1f0c9a3e-postgres" in caught.value.remedy


@given(st.text())
def test_no_text_makes_a_reference_whose_parts_cannot_be_read(text: str) -> None:
    try:
        ref = BackupRef(backup_id=text, component=Component.LOGS)
    except ConfigurationError:
        return
    assert ref.time.tzinfo is UTC
    assert is_source_name(ref.source)


def test_attempts_have_different_tokens() -> None:
    assert len({attempt_token() for _ in range(100)}) == 100
