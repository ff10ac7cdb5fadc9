"""The replication slot: it makes the source keep the WAL that the next backup needs.

A slot that nobody moves would fill the source's disk, so it is looked at before every backup and
given up when it holds too much. It is moved only to where a backup ends that the next one builds
on, never on receipt: a backup may fail after it has received everything.

https://www.postgresql.org/docs/current/view-pg-replication-slots.html
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from neuroca_backup import postgres_session
from neuroca_backup.engines.postgresql_physical import lsn
from neuroca_backup.errors import ChainBrokenError, ConfigurationError
from neuroca_backup.model.endpoint import Endpoint

_FULL_NEEDED = "Take a full backup; it begins a new chain."


@dataclass(frozen=True, slots=True)
class Held:
    """What a slot holds: how (`wal_status`), from where, and how many bytes up to now."""

    status: str
    restart: int
    retained: int


def hold(endpoint: Endpoint, name: str, *, limit: int, covered: int | None) -> list[str]:
    """See that the slot `name` holds WAL from now on; return notes for the manifest.

    `covered` is the position up to which the parent of this backup has everything: the slot is
    moved there. It is None for a full backup, which creates the slot anew when it is lost or holds
    more than `limit` bytes.

    Raises:
        ChainBrokenError: The slot is lost, or held more than `limit` and was dropped; only where
            there is a parent.
        ConfigurationError: There is a slot of that name that is no such slot.
    """
    held = _look(endpoint, name)
    notes: list[str] = []
    if held is not None and covered is not None and held.restart < covered:
        if held.status != "lost":
            _run(endpoint, "pg_replication_slot_advance(%s, %s)", name, lsn.printed(covered))
        held = _look(endpoint, name)
    if held is not None and (held.status == "lost" or held.retained > limit):
        reason = _words(name, held, limit)
        _run(endpoint, "pg_drop_replication_slot(%s)", name)
        if covered is not None:
            raise ChainBrokenError(
                f"The chain cannot be continued: {reason}; the slot was dropped",
                remedy=_FULL_NEEDED,
                slot=name,
                retained=held.retained,
            )
        notes.append(f"Created anew, because {reason}.")
        held = None
    if held is None:
        # Reserved at once: WAL is kept from here on, not from when somebody first connects.
        _run(endpoint, "pg_create_physical_replication_slot(%s, true)", name)
    elif held.status == "unreserved":
        notes.append(f"The slot {name} is about to lose WAL: raise max_slot_wal_keep_size.")
    if _unlimited(endpoint):
        notes.append(
            "max_slot_wal_keep_size is not set on the source: set it above max_retained_wal, so "
            f"that the slot {name} cannot fill its disk if backups stop."
        )
    return notes


def _words(name: str, held: Held, limit: int) -> str:
    if held.status == "lost":
        return f"the slot {name} has lost WAL that the next backup needed"
    return (
        f"the slot {name} held {held.retained / 1e6:,.0f} MB of WAL on the source, more than "
        f"max_retained_wal allows ({limit / 1e6:,.0f} MB)"
    )


def _look(endpoint: Endpoint, name: str) -> Held | None:
    with postgres_session.connect(endpoint) as connection:
        row: Any = connection.execute(
            "SELECT slot_type, temporary, wal_status, restart_lsn::text,"
            " pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_insert_lsn(), restart_lsn)"
            " FROM pg_catalog.pg_replication_slots WHERE slot_name = %s",
            [name],
        ).fetchone()
    if row is None:
        return None
    kind, temporary, status, restart, retained = row
    if kind != "physical" or temporary:
        raise ConfigurationError(
            f"The replication slot {name} at {endpoint.label} is not a permanent physical slot",
            remedy="Name another slot in the source's option `slot`.",
            path="options.slot",
            value=name,
        )
    if restart is None or status == "lost":
        return Held(status="lost", restart=0, retained=0)
    return Held(status=str(status), restart=lsn.parse(restart), retained=int(retained))


def _unlimited(endpoint: Endpoint) -> bool:
    with postgres_session.connect(endpoint) as connection:
        row = connection.execute("SELECT current_setting('max_slot_wal_keep_size')").fetchone()
        return row is not None and row[0] == "-1"


def _run(endpoint: Endpoint, call: str, *values: str) -> None:
    with postgres_session.connect(endpoint, autocommit=True) as connection:
        connection.execute(f"SELECT pg_catalog.{call}", values)
