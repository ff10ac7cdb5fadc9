from __future__ import annotations

import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from neuroca_backup.errors import AccessDeniedError, ConfigurationError
from neuroca_backup.model.identity import Component
from neuroca_backup.services import configure as module
from neuroca_backup.services.configure import configure
from neuroca_backup.settings import loading, sample_text

SHIPPED = Path(__file__).resolve().parents[2] / "config" / "backup.yaml"
# A Saturday.
NOW = datetime(2026, 11, 21, 2, 0, tzinfo=UTC)


def test_the_shipped_file_is_written_where_there_is_none(tmp_path: Path) -> None:
    path = tmp_path / "etc" / "neuroca" / "backup.yaml"
    before = os.umask(0o077)
    try:
        report = configure(path, now=NOW)
    finally:
        os.umask(before)

    assert report.created
    assert path.read_bytes() == SHIPPED.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [entry.name for entry in path.parent.iterdir()] == ["backup.yaml"]


def test_a_file_that_exists_is_read_and_never_changed(tmp_path: Path) -> None:
    path = tmp_path / "backup.yaml"
    path.write_text(SHIPPED.read_text() + "# mine\n")
    content, changed_at = path.read_bytes(), path.stat().st_mtime_ns

    assert not configure(path, now=NOW).created
    assert not configure(path, now=NOW).created
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (content, changed_at)


def test_the_report_says_what_runs_when(tmp_path: Path) -> None:
    report = configure(tmp_path / "backup.yaml", now=NOW)
    plan = {planned.component: planned for planned in report.plan}

    assert list(plan) == [
        Component.DATABASE,
        Component.MEMORY_TIERS,
        Component.CONFIGURATION,
        Component.MODEL_WEIGHTS,
        Component.LOGS,
    ]
    database = plan[Component.DATABASE]
    assert database.cron == "0 2 * * *"
    assert database.next_runs == tuple(NOW + timedelta(days=days) for days in (1, 2, 3))
    assert database.retention == timedelta(days=30)
    assert database.rpo == timedelta(hours=24)
    assert database.sources == ("postgres", "mongodb", "redis", "vector")
    weights = plan[Component.MODEL_WEIGHTS]
    assert [run.isoformat() for run in weights.next_runs] == [
        "2026-11-22T04:00:00+00:00",
        "2026-11-29T04:00:00+00:00",
        "2026-12-06T04:00:00+00:00",
    ]
    assert (weights.rpo, weights.sources) == (None, ("models",))


def test_times_are_utc_wherever_now_comes_from(tmp_path: Path) -> None:
    from zoneinfo import ZoneInfo  # noqa: PLC0415 - this test alone needs it

    local = NOW.astimezone(ZoneInfo("America/Los_Angeles"))
    report = configure(tmp_path / "backup.yaml", now=local)
    assert report.plan[0].next_runs[0] == NOW + timedelta(days=1)
    assert report.plan[0].next_runs[0].tzinfo is UTC


def test_a_component_with_sources_and_no_schedule_is_in_the_report(tmp_path: Path) -> None:
    path = tmp_path / "backup.yaml"
    path.write_text(SHIPPED.read_text().replace('    database: "0 2 * * *"', "   "))
    report = configure(path, now=NOW)

    assert report.plan[0].component is Component.DATABASE
    assert (report.plan[0].cron, report.plan[0].next_runs) == (None, ())


def test_the_report_carries_the_warnings(tmp_path: Path) -> None:
    found = configure(tmp_path / "backup.yaml", now=NOW).warnings
    assert [w for w in found if w.startswith("backup.encryption: only the KMS key")]


@pytest.mark.parametrize(
    ("reviewed", "said"),
    [
        ("", "nobody has said"),
        ("reviewed: 2025-11-20", "more than a year ago"),
        ("reviewed: 2026-01-01", None),
        ('reviewed: "2026-01-01"', None),
    ],
)
def test_a_review_of_the_classifications_that_is_due_is_warned_of(
    tmp_path: Path, reviewed: str, said: str | None
) -> None:
    path = tmp_path / "backup.yaml"
    path.write_text(f"{SHIPPED.read_text()}  classification: {{{reviewed}}}\n")

    found = [w for w in configure(path, now=NOW).warnings if "classification" in w]

    assert [said in w for w in found] == ([] if said is None else [True])


@pytest.mark.parametrize("day", ['"last year"', "2026-01-01T00:00:00Z", "2026"])
def test_a_day_of_review_that_is_none_is_refused(tmp_path: Path, day: str) -> None:
    path = tmp_path / "backup.yaml"
    path.write_text(f"{SHIPPED.read_text()}  classification: {{reviewed: {day}}}\n")

    with pytest.raises(ConfigurationError, match="Write it like 2026-11-01"):
        configure(path, now=NOW)


def test_a_file_with_mistakes_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "backup.yaml"
    path.write_text(SHIPPED.read_text().replace('"30d"', '"30x"'))
    before = path.read_bytes()

    with pytest.raises(ConfigurationError, match=r"backup\.retention\.database"):
        configure(path, now=NOW)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ("{jobs: 0}", "backup.sources.postgres.options.jobs"),
        ("{job: 4}", "backup.sources.postgres.options.job"),
        ("{databases: neuroca}", "backup.sources.postgres.options.databases"),
    ],
)
def test_an_option_that_its_engine_refuses_is_named_with_its_place(
    tmp_path: Path, options: str, place: str
) -> None:
    path = tmp_path / "backup.yaml"
    source = (
        "    postgres:\n      component: database\n      engine: postgresql\n"
        f"      connection: neuroca_postgres\n      options: {options}\n"
    )
    path.write_text(SHIPPED.read_text() + "  sources:\n" + source)
    with pytest.raises(ConfigurationError, match=place) as caught:
        configure(path, now=NOW)
    assert caught.value.facts["path"] == place
    assert str(path) in str(caught.value)


def test_a_file_that_another_process_has_just_written_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "backup.yaml"
    theirs = SHIPPED.read_text() + "# theirs\n"

    def sample_after_the_other() -> str:
        path.write_text(theirs)
        return sample_text()

    monkeypatch.setattr(module, "sample_text", sample_after_the_other)
    assert not configure(path, now=NOW).created
    assert path.read_text() == theirs
    assert [entry.name for entry in tmp_path.iterdir()] == ["backup.yaml"]


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigurationError, match="cannot be written: No space left on device"):
        configure(tmp_path / "backup.yaml", now=NOW)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_may_not_be_written_names_the_user(tmp_path: Path) -> None:
    folder = tmp_path / "etc"
    folder.mkdir(mode=0o555)
    user = os.geteuid()
    if user == 0:  # The superuser may write everywhere, so somebody else tries.
        os.seteuid(65534)
    try:
        with pytest.raises(AccessDeniedError, match="cannot be written by user id"):
            configure(folder / "backup.yaml", now=NOW)
    finally:
        os.seteuid(user)
    assert list(folder.iterdir()) == []


def test_a_file_in_place_of_the_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "etc").write_text("")
    with pytest.raises(ConfigurationError, match=r"etc/backup\.yaml"):
        configure(tmp_path / "etc" / "backup.yaml", now=NOW)


def test_the_installed_package_brings_its_own_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sample").mkdir()
    (tmp_path / "sample" / "backup.yaml").write_text("# packaged\n")
    monkeypatch.setattr(loading, "_PACKAGE", tmp_path)
    assert sample_text() == "# packaged\n"


def test_a_package_without_its_sample_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "_PACKAGE", tmp_path / "a" / "b")
    with pytest.raises(ConfigurationError, match=r"the sample .* cannot be read"):
        sample_text()
