"""Restoring: rebuild beside, recover with a throwaway server, and only then move into place."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from psycopg import sql

from neuroca_backup import postgres_session, sandbox
from neuroca_backup.engines import Restorable, RestoreTarget
from neuroca_backup.engines.postgresql_physical import (
    compare,
    lsn,
    points,
    serving,
    unpack,
    wal,
)
from neuroca_backup.engines.postgresql_physical.place import Place, find
from neuroca_backup.errors import (
    DamagedError,
    NotFoundError,
    SpoolError,
    TargetRefusedError,
    UnreachableError,
)
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.sandbox.postgres_directory import answers, peer_endpoint

_RECOVERY = {
    "recovery_target_action": "promote",
    "recovery_target_timeline": "current",
    # A server that recovers has to have one. There is nothing to fetch: all WAL is in place.
    "restore_command": "false",
}
_NOT_REACHED = "recovery ended before configured recovery target was reached"
_TOO_EARLY = "requested recovery stop point is before consistent recovery point"
_STARTED_SECONDS = 60
_UNCHECKED = (
    "The structure of tables and indexes is not checked: the extension amcheck is not installed on "
    "this machine, or the target's extra says `structure_check: false`"
)


def preflight(backup: Restorable, target: RestoreTarget) -> list[str]:
    """Refuse what cannot work before anything is touched; see the protocol."""
    point = points.find(backup)
    place = find(backup, target)
    place.refuse_running()
    place.refuse_occupied(target)
    for location in place.locations.values():
        _refuse_tablespace(location, place)
    # Room for the parts unpacked, and as much again for what combining them writes.
    needed = sum(one.plain_size for one in backup.chain) * (2 if point.bases > 1 else 1)
    free = shutil.disk_usage(place.directory.parent).free
    if free < needed:
        raise SpoolError(
            f"The restore needs about {needed / 1e6:,.0f} MB beside {place.directory}, and "
            f"{free / 1e6:,.0f} MB are free there",
            remedy="Make room, or restore into a directory on another disk.",
            needed=needed,
            free=free,
        )
    notes = [f"{place.directory} will hold the cluster as of {point.words}"]
    if place.occupied():
        notes.append(f"{place.directory} will be kept as {place.kept()}")
    return notes


def load(backup: Restorable, target: RestoreTarget) -> list[str]:
    """Rebuild the cluster beside its place and recover it to the chosen moment."""
    point, place = points.find(backup), find(backup, target)
    _clean(place, backup.work)
    data = unpack.rebuild(
        backup.folders[: point.bases],
        place.staging,
        programs=place.programs,
        locations=place.locations,
    )
    segment_bytes = int(backup.last.dump.facts["segment_bytes"])
    for folder in backup.folders[point.bases - 1 :]:
        _place_wal(folder / wal.FOLDER, data / "pg_wal", segment_bytes)
    (data / "recovery.signal").touch()
    for owned in (data, *place.locations.values()):
        unpack.give(owned, place.account)
    return _recover(backup, place, point)


def publish(backup: Restorable, target: RestoreTarget) -> list[str]:
    """Move the recovered directory into its place; a repeat changes nothing more."""
    place = find(backup, target)
    notes: list[str] = []
    if place.data.is_dir():
        serving.require_clean(place.data, place)
        place.refuse_running()
        place.refuse_occupied(target)
        if place.occupied():
            kept = place.kept()
            place.directory.rename(kept)
            notes.append(
                f"What was in {place.directory} is kept as {kept}; remove it when it is not needed"
            )
        elif place.directory.is_dir():
            place.directory.rmdir()
        place.data.rename(place.directory)
        _on_disk(place.directory.parent)
        if not place.gate:
            notes.append(_how_to_start(place))
    elif not (place.directory / "PG_VERSION").is_file():
        raise NotFoundError(
            f"Neither {place.data} nor {place.directory} holds a cluster: nothing was loaded",
            remedy="Run the restore from its load step on.",
            path=str(place.directory),
        )
    if place.staging.exists():
        shutil.rmtree(place.staging)
    if place.gate:
        notes += _open_gate(backup, target.endpoint, place)
    return notes


def _clean(place: Place, work: Path) -> None:
    sandbox.stop(work)
    if place.staging.exists():
        shutil.rmtree(place.staging)
        for location in place.locations.values():
            if location.is_dir():
                shutil.rmtree(location)
    place.staging.mkdir(mode=0o711 if place.account else 0o700)


def _refuse_tablespace(location: Path, place: Place) -> None:
    # A restore that was interrupted has filled it, and its repeat empties it.
    if not place.staging.exists() and location.exists() and any(location.iterdir()):
        raise TargetRefusedError(
            f"{location}, where a tablespace would go, is not empty",
            remedy="Map the tablespace to a directory that is absent or empty.",
            path=str(location),
        )


def _place_wal(slices: Path, pg_wal: Path, segment_bytes: int) -> None:
    """Copy segments to where recovery reads them, as long as they were on the server.

    A later backup's copy of a segment begins like an earlier one's and reaches further.
    """
    for path in sorted(slices.iterdir()):
        segment = pg_wal / path.name
        shutil.copyfile(path, segment)
        os.truncate(segment, segment_bytes)
        segment.chmod(0o600)


def _recover(backup: Restorable, place: Place, point: points.Point) -> list[str]:
    consistency, facts = backup.last.dump.consistency, backup.last.dump.facts
    try:
        with (
            serving.served(
                place.data,
                place,
                work=backup.work,
                superuser=facts["superuser"],
                settings={**_RECOVERY, **point.settings},
            ) as endpoint,
            postgres_session.connect(endpoint) as connection,
        ):
            row = connection.execute("SELECT pg_catalog.pg_is_in_recovery()").fetchone()
            unchecked = [] if compare.can_check_structure(connection, place) else [_UNCHECKED]
    except UnreachableError as error:
        raise _explained(error, point) or error from None
    assert row is not None  # noqa: S101 - functions always give one row
    history = place.data / "pg_wal" / f"{int(consistency['timeline']) + 1:08X}.history"
    reached, reason = _switch(history)
    stop = lsn.parse(consistency["lsn"])
    if (
        row[0]
        or lsn.parse(reached) > lsn.parse(consistency["end_lsn"])
        or (backup.until is None and lsn.parse(reached) < stop)
    ):
        raise DamagedError(
            f"Recovery ended at {reached} ({reason}) instead of {point.words}",
            remedy="Restore from another store, or an earlier moment.",
            reached=reached,
        )
    return [
        f"Recovered to {point.words}: {reason}, at LSN {reached}, now on another timeline",
        *unchecked,
    ]


def _switch(history: Path) -> tuple[str, str]:
    """Return where and why the recovered cluster left its timeline, as its history file says."""
    try:
        last = history.read_text().strip().splitlines()[-1].split("\t")
    except (FileNotFoundError, IndexError):
        raise DamagedError(
            f"The recovered cluster has no {history.name}: it was not recovered to a target",
            remedy="Run the restore again, and look at the disk.",
        ) from None
    return last[1], last[2]


def _explained(error: UnreachableError, point: points.Point) -> DamagedError | None:
    """Return what a recovery that ended too early means, or None for another failure."""
    log = error.problem
    if _NOT_REACHED not in log and _TOO_EARLY not in log:
        return None
    reached = serving.last_transaction(log)
    return DamagedError(
        f"Recovery should reach {point.words}, and its WAL ends "
        f"{f'at {reached}' if reached else 'before the first transaction'}: {log}",
        remedy="Restore from another store, or to an earlier moment.",
        wanted=point.words,
        reached=reached,
    )


def _how_to_start(place: Place) -> str:
    who = f"As {place.account.name} start" if place.account else "Start"
    return (
        f"{who} it with {place.programs / 'pg_ctl'} -D {place.directory} start; its "
        "postgresql.conf, pg_hba.conf and archive_command are those of the source"
    )


def _open_gate(backup: Restorable, endpoint: Endpoint, place: Place) -> list[str]:
    """Let the waiting sandbox serve the directory, and make the user it promised."""
    inside = peer_endpoint(
        place.socket, backup.last.dump.facts["superuser"], port=endpoint.port or 0
    )
    if answers(inside):
        return []
    try:
        descriptor = os.open(place.gate, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        raise TargetRefusedError(
            f"The sandbox no longer waits for a data directory: {error.strerror}",
            remedy="Restore into a new sandbox.",
        ) from error
    with os.fdopen(descriptor, "wb") as gate:
        gate.write(b"go\n")
    deadline = time.monotonic() + _STARTED_SECONDS
    while not answers(inside):
        if time.monotonic() > deadline:
            raise UnreachableError(
                f"The sandbox did not start on {place.directory} within {_STARTED_SECONDS} s",
                remedy="Read its log, server.log beside that directory.",
            )
        time.sleep(0.05)
    with postgres_session.connect(inside, autocommit=True) as connection:
        # Hashed here, so that no log of the server can hold the password.
        hashed = connection.pgconn.encrypt_password(
            endpoint.password.encode(), endpoint.user.encode(), b"scram-sha-256"
        ).decode()
        connection.execute(
            sql.SQL("CREATE ROLE {} LOGIN SUPERUSER PASSWORD {}").format(
                sql.Identifier(endpoint.user), sql.Literal(hashed)
            )
        )
    return [f"The sandbox serves it at {endpoint.label} to the user {endpoint.user}"]


def _on_disk(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
