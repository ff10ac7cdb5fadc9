"""Verifying: reading stored backups back and saying how far each copy is proven.

A check that could not run is an error, never a result; a finding names the object and the store.
What a backup refers to in earlier ones is read like its own members, in every store.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from neuroca_backup.catalog import Catalog
from neuroca_backup.engines import Engine
from neuroca_backup.errors import BackupError, DamagedError, NotFoundError
from neuroca_backup.keyring.keys_document import Keyring
from neuroca_backup.model import document
from neuroca_backup.model.identity import BackupRef
from neuroca_backup.model.status import Level, Verification
from neuroca_backup.services.examination import Examination
from neuroca_backup.services.inventory import holds, read_verification
from neuroca_backup.services.ledger import Ledger
from neuroca_backup.stores import Store

log = logging.getLogger(__name__)


class Verifier:
    """Checks backups in their stores.

    Args:
        engine: Resolves the engine that a manifest names.
        stores: All stores by name; the last one configured is the one read in depth.
        keyring: Who can unwrap keys; needed for READABLE and above.
        catalog: Where results are noted, beside the one kept in the store itself.
        workers: Members read at once.
    """

    def __init__(
        self,
        *,
        engine: Callable[[str], Engine],
        stores: Mapping[str, Store],
        keyring: Keyring,
        catalog: Catalog,
        workers: int,
    ) -> None:
        self._engine = engine
        self._stores = stores
        self._keyring = keyring
        self._ledger = Ledger(catalog)
        self._workers = workers

    def verify(self, ref: BackupRef, *, level: Level = Level.PARSED) -> dict[str, Verification]:
        """Check every store's copy: INTACT everywhere, and up to `level` in the secondary.

        Whoever restores on the worst day reads the secondary, so that is the copy unsealed here.

        Raises:
            DamagedError: A copy is damaged, after all results were recorded; lists every finding.
            NotFoundError: No store has the backup.
            BackupError: A store could not be checked; the others have been.
        """
        deepest = "secondary" if "secondary" in self._stores else next(iter(self._stores))
        results: dict[str, Verification] = {}
        failures: list[BackupError] = []
        held = False
        # A store that does not answer must not keep the others from being checked.
        for name in self._stores:
            try:
                present = holds(self._stores[name], ref)
                held = held or present
                if present or name != "tertiary":
                    depth = level if name == deepest else Level.INTACT
                    results[name] = self.check(ref, name, level=depth)
            except BackupError as error:
                log.error("%s could not be checked in %s: %s", ref.backup_id, name, error)  # noqa: TRY400 - raised below
                failures.append(error)
        if not held and not failures:
            raise NotFoundError(
                f"There is no backup {ref.backup_id} in {', '.join(self._stores)}",
                remedy="`neuroca-backup list` shows what there is.",
                backup_id=ref.backup_id,
            )
        findings = [
            f"{name}: {finding.key}: {finding.problem}"
            for name, result in results.items()
            for finding in result.findings
        ]
        if findings:
            raise DamagedError(
                f"{ref.backup_id} is damaged: {'; '.join(findings)}",
                remedy="Another store's copy can be restored; find out what damaged this one, "
                "then take a new backup.",
                backup_id=ref.backup_id,
                findings=findings,
            )
        if failures:
            raise failures[0]
        return results

    def check(self, ref: BackupRef, store_name: str, *, level: Level) -> Verification:
        """Check one store's copy up to `level`, record the result there and in the catalog.

        The result says what the check before it had proven: see `Verification.after`.
        """
        store = self._stores[store_name]
        result = self.examine(ref, store_name, level=level).after(_former(store, ref))
        if holds(store, ref):
            # Where there is no manifest there is no backup, and nothing may look like one.
            store.put(ref.verification_key, document.encode(result.model_dump(mode="json")))
        self._ledger.note(
            f"the check of {ref.backup_id} in {store.name}",
            lambda catalog: catalog.record_verification(result),
        )
        log.info(
            "%s in %s: %s, %d findings, %.1f s",
            ref.backup_id,
            store.name,
            result.level.name,
            len(result.findings),
            result.seconds,
        )
        return result

    def examine(self, ref: BackupRef, store_name: str, *, level: Level) -> Verification:
        """Check one store's copy up to `level`; nothing is recorded, and nothing is written."""
        store = self._stores[store_name]
        begun = time.monotonic()
        copy = Examination(store, ref, self._keyring, self._engine, self._workers)
        reached = copy.examine(level)
        return Verification(
            backup_id=ref.backup_id,
            store=store.name,
            level=reached,
            findings=tuple(copy.findings),
            checked_at=datetime.now(UTC),
            seconds=time.monotonic() - begun,
            bytes_read=copy.progress.done,
            manifest=copy.manifest_sha256,
        )


def _former(store: Store, ref: BackupRef) -> Verification | None:
    """Return the result of the last check; a damaged one, which the check reports, counts as none.

    It may lie there without the manifest that it is about: then that is gone.
    """
    try:
        return read_verification(store, ref)
    except DamagedError:
        return None
