"""Notes for the catalog that must never fail the work they are about."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from neuroca_backup.catalog import Catalog
from neuroca_backup.errors import BackupError, TransientError
from neuroca_backup.model.identity import BackupRef
from neuroca_backup.services.progress import Progress

log = logging.getLogger(__name__)

# A catalog that does not answer costs a timeout a note; it is left alone for this long.
_PAUSE_SECONDS = 60.0


class Ledger:
    """Writes to the catalog; when that fails, says loudly what is missing and how to mend it.

    The stores hold the truth, the catalog is an index: a backup that exists must not be called
    failed because the index could not be written.
    """

    def __init__(self, catalog: Catalog, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._catalog = catalog
        self._clock = clock
        self._prepared = False
        self._silent_until = float("-inf")

    def note(self, what: str, write: Callable[[Catalog], None]) -> None:
        """Call `write` with the catalog, whose schema is made or migrated before the first note."""
        if self._clock() < self._silent_until:
            self._missed(what, "it did not answer a moment ago.")
            return
        try:
            if not self._prepared:
                self._catalog.prepare()
                self._prepared = True
            write(self._catalog)
        except BackupError as error:
            if isinstance(error, TransientError):
                self._silent_until = self._clock() + _PAUSE_SECONDS
            self._missed(what, str(error))

    def _missed(self, what: str, why: str) -> None:
        log.error(
            "The catalog missed %s: %s Run `neuroca-backup catalog rebuild` once it is back.",
            what,
            why,
        )


@contextmanager
def timed(
    ledger: Ledger, ref: BackupRef, stage: str, *, total: int | None = None
) -> Iterator[Progress]:
    """Give a stage its progress; log and note how long it took once it has succeeded."""
    progress = Progress(f"{stage} {ref.backup_id}", total=total)
    begun = time.monotonic()
    yield progress
    seconds = time.monotonic() - begun
    log.info("%s, finished in %.1f s", progress, seconds)
    ledger.note(
        f"{stage} of {ref.backup_id}",
        lambda catalog: catalog.record_stage(
            ref.backup_id, stage, seconds=seconds, size=progress.done
        ),
    )
