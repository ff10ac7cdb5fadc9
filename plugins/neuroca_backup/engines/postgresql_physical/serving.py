"""A throwaway server on a restored directory: it recovers it, and answers questions about it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from neuroca_backup import commands, sandbox
from neuroca_backup.engines.postgresql_physical.place import Place
from neuroca_backup.errors import PermanentError
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.sandbox.postgres_directory import DirectoryServer

_ALTERED = "postgresql.auto.conf"
_ASIDE = "postgresql.auto.conf.aside"
_CLEAN = "shut down"
_PREPARED = "max_prepared_xacts setting"
_STATE = "Database cluster state"


@contextmanager
def served(
    data: Path,
    place: Place,
    *,
    work: Path,
    superuser: str,
    settings: Mapping[str, str] | None = None,
) -> Iterator[Endpoint]:
    """Run a server on `data` for the length of the block, and see that it ends cleanly.

    None of the directory's own settings is in force meanwhile; the file of ALTER SYSTEM, which no
    option of the server leaves out, is set aside and put back.

    Raises:
        PermanentError: The server did not end cleanly.
        UnreachableError: It did not start, or not recover; holds the tail of its log.
    """
    sandbox.stop(work)  # what an interrupted restore has left running
    altered, aside = data / _ALTERED, data / _ASIDE
    if altered.exists() and not aside.exists():
        altered.rename(aside)  # a server starts without it
    # Prepared transactions of the source have to find room.
    prepared = controldata(data, place)[_PREPARED]
    server = DirectoryServer(
        data=data,
        programs=place.programs,
        superuser=superuser,
        account=place.account,
        settings={"max_prepared_transactions": prepared, **(settings or {})},
    )
    try:
        yield sandbox.launch(work, server)
    finally:
        sandbox.stop(work)
        if aside.exists():
            aside.replace(altered)
    require_clean(data, place)


def require_clean(data: Path, place: Place) -> None:
    """Raise `PermanentError` where the last server on a directory did not end cleanly."""
    state = controldata(data, place)[_STATE]
    if state != _CLEAN:
        raise PermanentError(
            f"No server has ended cleanly on {data}; the cluster is {state!r}",
            remedy="Look at the disk's space and health, then run the restore from its load step "
            "on.",
            state=state,
        )


def controldata(data: Path, place: Place) -> dict[str, str]:
    """Return what `pg_controldata` says of a data directory, by its own words."""
    words = commands.run([place.programs / "pg_controldata", data]).decode()
    return {
        name.strip(): value.strip()
        for name, _, value in (line.partition(":") for line in words.splitlines())
    }


def last_transaction(log: str) -> str | None:
    """Return the time of the last transaction that a recovery has replayed, as its log says."""
    found = re.findall(r"last completed transaction was at log time (.*)", log)
    return found[-1] if found else None
