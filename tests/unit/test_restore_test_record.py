"""The record of a restore test: what it says, where it lies, what the catalog makes of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from neuroca_backup.catalog.memory import MemoryCatalog
from neuroca_backup.errors import DamagedError, StoreUnavailableError
from neuroca_backup.model.identity import Component
from neuroca_backup.model.restore_test import (
    MARKDOWN,
    PASSED,
    REPORT,
    RestoreTest,
    SourceTest,
    key_of,
)
from neuroca_backup.services.audit import Audit
from neuroca_backup.services.forecast import forecast
from neuroca_backup.services.ledger import Ledger
from neuroca_backup.services.rebuild import rebuild
from neuroca_backup.services.restore_tests.recording import Recording
from neuroca_backup.stores.local import LocalStore

AT = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
ID = "20261123T080000Z-1f0c9a3e"
BACKUP = "20261123T020000Z-1f0c9a3e-postgres"


def source(**changes: Any) -> SourceTest:
    return SourceTest.model_validate(
        {
            "restore_id": f"restore-{ID}-postgres",
            "component": Component.DATABASE,
            "source": "postgres",
            "backup_id": BACKUP,
            "taken_at": AT - timedelta(hours=6),
            "engine": "postgresql",
            "source_version": "18.6",
            "server_version": "18.6",
            "stores": ("primary",),
            "outcome": PASSED,
            "started_at": AT,
            "finished_at": AT + timedelta(seconds=30),
            "seconds": {"sandbox": 100, "fetch": 4, "load": 5, "compare": 1, "sanitise": 300},
            "size": 50_000_000,
            "records": 40,
            "sanitised": "yes",
            "removed": True,
            **changes,
        }
    )


def test_of(*sources: SourceTest) -> RestoreTest:
    return RestoreTest(
        test_id=ID,
        actor="sre",
        sandbox="process",
        started_at=AT,
        finished_at=AT + timedelta(minutes=8),
        sources=sources,
    )


test_of.__test__ = False  # type: ignore[attr-defined] # it makes one


def stores(folder: Path) -> dict[str, LocalStore]:
    made = {name: LocalStore(name, folder / name) for name in ("primary", "secondary")}
    for store in made.values():
        store.initialise()
    return made


def test_a_record_is_read_as_it_was_written_and_any_changed_bit_is_found() -> None:
    test, key = test_of(source()), key_of(ID, REPORT)

    assert RestoreTest.decode(test.encode(), name=f"primary:{key}") == test
    changed = test.encode().replace(b'"passed"', b'"Passed"', 1)
    with pytest.raises(DamagedError):
        RestoreTest.decode(changed, name=key)
    with pytest.raises(DamagedError, match="is the restore test"):
        RestoreTest.decode(test.encode(), name=key_of("20261124T080000Z-1f0c9a3e", REPORT))


def test_the_rate_counts_what_a_real_restore_does_and_nothing_else() -> None:
    assert source().rate == 5_000_000
    assert source(outcome="failed in sanitise").rate is None
    assert test_of(source()).summary()["sources"][0]["megabytes_per_second"] == 5


def test_nothing_tested_is_nothing_passed() -> None:
    assert not test_of().passed
    assert test_of().success_rate == 0
    half = test_of(source(), source(outcome="failed in compare"))
    assert (half.passed, half.success_rate) == (False, 0.5)


def test_the_report_says_what_failed_why_and_what_is_left() -> None:
    failed = source(outcome="failed in compare", problem="3 rows are missing.", removed=False)
    told = test_of(source(), failed).markdown()

    assert f"# Restore test {ID}: FAILED" in told
    assert "1 of 2 sources passed (50%), in 480 s" in told
    assert "**failed in compare**: 3 rows are missing." in told
    assert "sandbox: NOT removed" in told
    assert "5.0 MB/s" not in told
    assert "| 5.0 |" in told


def test_a_store_that_does_not_take_the_record_is_told_after_the_others_have_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, catalog = stores(tmp_path), MemoryCatalog()

    def fails(*_: object, **__: object) -> None:
        raise StoreUnavailableError("primary does not answer", remedy="Wait.")

    monkeypatch.setattr(made["primary"], "put", fails)
    with pytest.raises(StoreUnavailableError):
        Recording(
            stores=made, ledger=Ledger(catalog), audit=Audit(stores=made, catalog=catalog)
        ).record(test_of(source()))

    assert made["secondary"].get(key_of(ID, MARKDOWN))
    assert [one.restore_id for one in catalog.restores()] == [f"restore-{ID}-postgres"]


def test_the_catalog_lists_restores_that_forecast_one_and_can_be_made_again(
    tmp_path: Path,
) -> None:
    made, catalog = stores(tmp_path), MemoryCatalog()
    recording = Recording(
        stores=made, ledger=Ledger(catalog), audit=Audit(stores=made, catalog=catalog)
    )
    never = source(source="redis", backup_id="", outcome="not tested", restore_id="r", seconds={})
    recording.record(test_of(source(), never))
    recording.record(test_of(source(), never))

    (listed,) = catalog.restores()
    assert (listed.outcome, dict(listed.seconds)) == (
        "restored",
        {"fetch": 4, "load": 5, "compare": 1},
    )
    assert listed.target == "restore test (process)"
    assert forecast(catalog, "postgres", 50_000_000).seconds == 10
    assert {event.action for event in catalog.events()} == {"restore test"}
    assert [test.test_id for test in recording.tests()] == [ID]

    again = MemoryCatalog()
    report = rebuild(again, made)
    assert report.complete
    assert (report.tests, report.backups) == (1, 0)
    assert list(again.restores()) == [listed]

    for name in made:
        (tmp_path / name / key_of(ID, REPORT)).write_bytes(b"{}")
    broken = rebuild(MemoryCatalog(), made)
    assert not broken.complete
    assert key_of(ID, REPORT).rpartition("/")[0] in str(broken.problems[0])
