"""Notes for the catalog that must never fail the work they are about."""

from __future__ import annotations

import logging
from collections.abc import Callable

from neuroca_backup.catalog import Catalog
from neuroca_backup.errors import BackupError

log = logging.getLogger(__name__)


class Ledger:
    """Writes to the catalog; when that fails, says loudly what is missing and how to mend it.

    The stores hold the truth, the catalog is an index: a backup that exists must not be called
    failed because the index could not be written.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def note(self, what: str, write: Callable[[Catalog], None]) -> None:
        """Call `write` with the catalog."""
        try:
            write(self._catalog)
        except BackupError as error:
            log.error(  # noqa: TRY400 - the sentence says all; a traceback would bury it
                "The catalog missed %s: %s Run `neuroca-backup catalog rebuild` once it is back.",
                what,
                error,
            )
