"""Keeping what a restore test has found: in every store, in the catalog, in the audit trail."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from neuroca_backup.catalog import RestoreRecord
from neuroca_backup.errors import BackupError, DamagedError
from neuroca_backup.model import document
from neuroca_backup.model.identity import BackupRef
from neuroca_backup.model.restore_test import (
    MARKDOWN,
    PREFIX,
    REPORT,
    RestoreTest,
    SourceTest,
    key_of,
)
from neuroca_backup.model.status import Level, Verification
from neuroca_backup.services.audit import Audit
from neuroca_backup.services.inventory import read_manifest
from neuroca_backup.services.ledger import Ledger
from neuroca_backup.stores import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Recording:
    """Writes records of restore tests, and reads them; the stores have the truth."""

    stores: Mapping[str, Store]
    ledger: Ledger
    audit: Audit

    def record(self, test: RestoreTest) -> tuple[str, ...]:
        """Write the record; a repeat replaces it. Return where the reports are.

        Raises:
            BackupError: A store did not take it, after all others did.
        """
        failures: list[BackupError] = []
        places = []
        for name, store in self.stores.items():
            try:
                # The report for people first: whoever finds the other one finds it, too.
                store.put(key_of(test.test_id, MARKDOWN), test.markdown().encode())
                store.put(key_of(test.test_id, REPORT), test.encode())
                places.append(f"{store.location.rstrip('/')}/{key_of(test.test_id, MARKDOWN)}")
            except BackupError as error:
                log.error("%s did not take the record of %s: %s", name, test.test_id, error)  # noqa: TRY400 - raised below
                failures.append(error)
        self._note(test)
        for one in test.sources:
            self._raise_level(one)
        if failures:
            raise failures[0]
        return tuple(places)

    def tests(self) -> Iterator[RestoreTest]:
        """Yield every test that any store has a record of, the newest first.

        Raises:
            BackupError: A store's own, or a record is damaged in every store.
        """
        found: dict[str, list[Store]] = {}
        for store in self.stores.values():
            for test_id in store.folders(PREFIX):
                found.setdefault(test_id, []).append(store)
        for test_id in sorted(found, reverse=True):
            yield read(found[test_id], test_id)

    def _note(self, test: RestoreTest) -> None:
        for record in records_of(test):
            self.ledger.note(
                f"the restore test of {record.backup_id}",
                lambda catalog, record=record: catalog.record_restore(record),  # type: ignore[misc]
            )
        self.audit.note(
            "restore test",
            test.test_id,
            actor=test.actor,
            result="passed" if test.passed else "failed",
            details={
                "sandbox": test.sandbox,
                "sources": {one.source: one.outcome for one in test.sources},
                "sanitised": {one.source: one.sanitised for one in test.sources},
            },
            at=test.finished_at,
        )

    def _raise_level(self, one: SourceTest) -> None:
        """Note that a copy was restored and compared, where all its bytes came from one store."""
        if not one.passed or len(one.stores) != 1:
            return
        (name,) = one.stores
        ref = BackupRef(one.backup_id, one.component)
        try:
            result = Verification(
                backup_id=one.backup_id,
                store=name,
                level=Level.RESTORED,
                checked_at=one.finished_at,
                seconds=sum(one.seconds.values()),
                bytes_read=one.size,
                manifest=read_manifest(self.stores[name], ref).sha256,
            )
            body = document.encode(result.model_dump(mode="json"))
            self.stores[name].put(ref.verification_key, body)
        except BackupError as error:
            # The test stands all the same: its own record says what it has proven.
            log.error("That %s was restored is not beside it: %s", one.backup_id, error)  # noqa: TRY400 - as said
            return
        self.ledger.note(
            f"the restore of {one.backup_id}", lambda catalog: catalog.record_verification(result)
        )


def read(stores: list[Store], test_id: str) -> RestoreTest:
    """Return the record of one test from the first of `stores` that has it whole.

    Raises:
        BackupError: None has; the last one's own.
    """
    key = key_of(test_id, REPORT)
    last: BackupError = DamagedError(f"{key} is in no store", remedy="Run another test.", key=key)
    for store in stores:
        try:
            return RestoreTest.decode(store.get(key), name=f"{store.name}:{key}")
        except BackupError as error:
            last = error
    raise last


def records_of(test: RestoreTest) -> Iterator[RestoreRecord]:
    """Yield what the catalog lists: a restore of each source that there was a backup of.

    Their seconds are of the steps that a real restore has, so that they forecast one.
    """
    for one in test.sources:
        if not one.backup_id:
            continue
        yield RestoreRecord(
            restore_id=one.restore_id,
            backup_id=one.backup_id,
            store="+".join(one.stores) or "-",
            target=f"restore test ({test.sandbox})",
            actor=test.actor,
            started_at=one.started_at,
            finished_at=one.finished_at,
            seconds=one.restoring,
            bytes_restored=one.size,
            outcome="restored" if one.passed else one.outcome,
            notes=(f"Restore test {test.test_id}", *([one.problem] if one.problem else [])),
        )
