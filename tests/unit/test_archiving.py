"""Which backups go to the tertiary store, what may be cold, and how long an archive takes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from neuroca_backup.errors import ConfigurationError
from neuroca_backup.model.identity import BackupRef, Component, set_id
from neuroca_backup.model.manifest import Dump, Manifest
from neuroca_backup.model.retrieval import RetrievalTier, expected
from neuroca_backup.services.archiving import wanted
from neuroca_backup.services.retrieval import Retrieval
from neuroca_backup.settings import Copying, Settings, warnings

if TYPE_CHECKING:
    from collections.abc import Sequence

START = datetime(2026, 1, 1, 2, tzinfo=UTC)


def ref(at: datetime) -> BackupRef:
    return BackupRef.of(set_id(at=at, run=str(at)), Component.DATABASE, "postgres")


def manifest(at: datetime, *, before_restore: str = "") -> Manifest:
    of = ref(at)
    return Manifest(
        backup_id=of.backup_id,
        set_id=of.set_id,
        component=of.component,
        source=of.source,
        engine="postgresql",
        attempt="0a0a0a0a",
        before_restore=before_restore,
        stages=(),
        dump=Dump(server_version="18", consistency={"time": at.isoformat()}, facts={}),
        members=(),
        started_at=at,
        finished_at=at,
        product="test",
    )


def copied(times: Sequence[datetime], how: Copying, *, failing: frozenset[int]) -> list[datetime]:
    """Return which of the backups of `times` are copied, where the copying of some fails."""
    standing: list[datetime] = []
    for number, at in enumerate(times):
        if wanted(manifest(at), [ref(one) for one in standing], how=how) and number not in failing:
            standing.append(at)
    return standing


@hypothesis.settings(max_examples=25, deadline=None)
@given(failing=st.frozensets(st.integers(0, 119), max_size=20), every=st.integers(1, 9))
def test_each_month_has_its_first_backup_that_could_be_copied(
    failing: frozenset[int], every: int
) -> None:
    times = [START + timedelta(days=every * number) for number in range(120)]
    standing = copied(times, Copying.MONTHLY, failing=failing)
    expected_ones: dict[tuple[int, int], datetime] = {}
    for number, at in enumerate(times):
        if number not in failing:
            expected_ones.setdefault((at.year, at.month), at)
    assert standing == list(expected_ones.values())


def test_a_week_begins_on_monday_also_over_the_turn_of_a_year() -> None:
    times = [START + timedelta(days=number) for number in range(-5, 12)]
    assert [
        one.strftime("%a %d") for one in copied(times, Copying.WEEKLY, failing=frozenset())
    ] == [
        "Sat 27",
        "Mon 29",
        "Mon 05",
        "Mon 12",
    ]


def test_all_or_none_ask_nothing_and_a_saved_state_is_no_monthly_one() -> None:
    saved = manifest(START, before_restore="restore-1")
    assert wanted(saved, [], how=Copying.ALL)
    assert not wanted(saved, [], how=Copying.MONTHLY)
    assert not wanted(manifest(START), [], how=Copying.NONE)
    again = manifest(START)
    assert wanted(again, [again.ref], how=Copying.MONTHLY), "a retry copies the same one"


@pytest.mark.parametrize(
    ("storage_class", "tier", "hours"),
    [
        ("GLACIER", "expedited", 5 / 60),
        ("GLACIER", "standard", 5),
        ("GLACIER", "bulk", 12),
        ("DEEP_ARCHIVE", "standard", 12),
        ("DEEP_ARCHIVE", "bulk", 48),
    ],
)
def test_the_longest_wait_is_what_aws_publishes(
    storage_class: str, tier: str, hours: float
) -> None:
    found = expected(storage_class, RetrievalTier(tier))
    assert found.most == timedelta(hours=hours)
    assert found.least < found.most


def test_what_cannot_be_had_so_is_refused_with_what_can() -> None:
    with pytest.raises(ConfigurationError, match="Its tiers: standard, bulk"):
        expected("DEEP_ARCHIVE", RetrievalTier.EXPEDITED)
    with pytest.raises(ConfigurationError, match="no archive"):
        expected("GLACIER_IR", RetrievalTier.STANDARD)


def test_the_slowest_archive_decides_and_is_said() -> None:
    found = Retrieval(3, 5_000_000, 1, {"GLACIER": 2, "DEEP_ARCHIVE": 1}, ("tertiary",))
    words = found.words(RetrievalTier.STANDARD)
    assert "3 objects lie (5.0 MB) only in GLACIER and DEEP_ARCHIVE" in words
    assert "6 h 0 min to 12 h 0 min" in words
    assert "1 of them asked for already" in words
    assert Retrieval().words(RetrievalTier.STANDARD) == ""


def settings(**changes: Any) -> Settings:
    storage: dict[str, Any] = {
        "primary": {"type": "s3", "bucket": "one", "region": "us-west-2"},
        "secondary": {"type": "local", "path": "/mnt/two"},
        "tertiary": {"type": "s3", "bucket": "three", "region": "us-west-2"},
    }
    for name, more in changes.pop("storage", {}).items():
        storage[name] |= more
    return Settings.model_validate(
        {
            "schedule": {"database": "0 2 * * *"},
            "storage": storage,
            "retention": {"database": "30d", **changes.pop("retention", {})},
            "encryption": {"key_management": "local", "local_key_file": "/etc/key"},
            **changes,
        }
    )


def test_a_year_is_kept_or_what_the_component_has_if_that_is_longer() -> None:
    kept = settings(retention={"logs": "500d", "tertiary": {"database": "7000d"}}).retention
    far = {one: kept.tertiary.of(one, nearby=kept.of(one)).days for one in Component}
    assert far == {"database": 7000, "logs": 500} | dict.fromkeys(
        ("memory_tiers", "configuration", "model_weights"), 365
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"storage": {"primary": {"storage_class": "GLACIER"}}}, "is an archive"),
        ({"storage": {"tertiary": {"storage_class": "FROZEN"}}}, "storage_class"),
        ({"storage": {"secondary": {"lock": {"mode": "compliance"}}}}, "may delete as well"),
        ({"storage": {"primary": {"lock": {"mode": "strict"}}}}, "mode"),
        ({"retention": {"tertiary": {"database": "7d"}}}, "shorter than retention.database"),
        ({"archive": {"database": "yearly"}}, "archive.database"),
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        settings(**changes)
    assert settings(storage={"primary": {"storage_class": "STANDARD_IA"}})


def test_who_keeps_less_than_s3_bills_for_is_told() -> None:
    cold = {"tertiary": {"storage_class": "DEEP_ARCHIVE"}}
    said = " ".join(warnings(settings(storage=cold, retention={"tertiary": {"database": "90d"}})))
    assert "retention.tertiary.database: 90d is shorter than the 180d" in said
    assert "retention.tertiary.logs" not in said
    assert "tertiary" not in " ".join(warnings(settings(storage=cold)))
