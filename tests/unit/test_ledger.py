"""Notes for the catalog: never fatal, never silent, never slow twice."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import pytest

from neuroca_backup.catalog import AuditEvent
from neuroca_backup.catalog.memory import MemoryCatalog
from neuroca_backup.errors import AccessDeniedError, BackupError, UnreachableError
from neuroca_backup.services.ledger import Ledger

EVENT = AuditEvent(at=datetime.now(UTC), actor="tester", action="restore", subject="x")


class Failing(MemoryCatalog):
    """A catalog that answers every call with an error."""

    def __init__(self, error: BackupError) -> None:
        super().__init__()
        self.error = error
        self.calls = 0

    def prepare(self) -> None:
        self.calls += 1
        raise self.error


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_note_reaches_a_catalog_that_nobody_prepared() -> None:
    catalog = MemoryCatalog()
    Ledger(catalog).note("an event", lambda found: found.record_event(EVENT))
    assert list(catalog.events()) == [EVENT]


def test_a_failing_catalog_is_named_with_the_remedy_and_fails_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ledger = Ledger(Failing(AccessDeniedError("The login failed", remedy="Check the password.")))
    with caplog.at_level(logging.ERROR):
        ledger.note("the backup b1", lambda found: found.record_event(EVENT))
    assert "The catalog missed the backup b1" in caplog.text
    assert "The login failed" in caplog.text
    assert "catalog rebuild" in caplog.text


def test_a_silent_catalog_is_asked_again_only_after_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    catalog, clock = Failing(UnreachableError("No answer", remedy="Wait.")), Clock()
    ledger = Ledger(catalog, clock=clock)
    with caplog.at_level(logging.ERROR):
        for second in (0, 30, 59):
            clock.now = second
            ledger.note(f"note {second}", lambda found: found.record_event(EVENT))
    assert catalog.calls == 1
    assert "note 59" in caplog.text
    clock.now = 61
    ledger.note("note 61", lambda found: found.record_event(EVENT))
    assert catalog.calls == 2
