"""The server that is backed up: what it must be able to do, and where it is in its WAL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from neuroca_backup import postgres_session
from neuroca_backup import postgres_tools as tools
from neuroca_backup.engines.postgresql_physical import lsn, wal
from neuroca_backup.errors import (
    AccessDeniedError,
    ConfigurationError,
    IncompatibleVersionError,
)
from neuroca_backup.model.endpoint import Endpoint

OLDEST = 13  # the first version with a manifest of its base backups
# Words of a connection's extra that are about a restore target, not about logging in.
OWN_WORDS = frozenset(
    {"data_directory", "owner", "tablespace_mapping", "structure_check"}
    | {"socket", "gate", "programs"}  # of a sandbox
)

_QUESTION = """
SELECT pg_catalog.current_setting('server_version'),
       pg_catalog.pg_is_in_recovery(),
       pg_catalog.current_setting('wal_level'),
       pg_catalog.current_setting('max_wal_senders')::int,
       pg_catalog.current_setting('max_replication_slots')::int,
       pg_catalog.current_setting('summarize_wal', true),
       (SELECT setting::bigint FROM pg_catalog.pg_settings WHERE name = 'wal_segment_size'),
       (SELECT rolreplication OR rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user),
       pg_catalog.pg_get_userbyid(10),
       (SELECT coalesce(json_object_agg(oid::text, pg_catalog.pg_tablespace_location(oid)), '{}')
          FROM pg_catalog.pg_tablespace WHERE spcname NOT IN ('pg_default', 'pg_global'))
"""


@dataclass(frozen=True, slots=True)
class Source:
    """What a dump needs to know of its server."""

    version: str
    identifier: str
    timeline: int
    segment_bytes: int
    summarizes: bool
    superuser: str
    tablespaces: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Marker:
    """A position that a restore can stop at exactly.

    `position` is where a record ends that this program has written; whatever was committed before
    `time` (ISO format, read before) lies before it. Everything up to `end` is on the server's
    disk. `transactions` is the snapshot at that moment, as `pg_current_snapshot` prints it.
    """

    position: int
    end: int
    time: str
    transactions: str


def login(endpoint: Endpoint) -> Endpoint:
    """Return `endpoint` without what its extra says about a restore target."""
    extra = {word: value for word, value in endpoint.extra.items() if word not in OWN_WORDS}
    return replace(endpoint, extra=extra)


def server_version(endpoint: Endpoint) -> str:
    """Log in and return the server's version."""
    with postgres_session.connect(endpoint) as connection:
        row = connection.execute("SELECT current_setting('server_version')").fetchone()
        assert row is not None  # noqa: S101 - a setting always gives one row
        return str(row[0])


def examine(endpoint: Endpoint, *, slot: bool) -> Source:
    """Return what there is to know, once everything that a physical backup needs is there.

    Raises:
        AccessDeniedError: The user may not replicate.
        ConfigurationError: A setting of the server rules physical backups out; names it.
        IncompatibleVersionError: The server is too old, or newer than our tools.
    """
    with postgres_session.connect(endpoint) as connection:
        row: Any = connection.execute(_QUESTION).fetchone()
    version, standby, level, senders, slots, summarizes, segment_bytes, may, superuser, spaces = row
    _require_version(endpoint, version)
    if not may:
        raise AccessDeniedError(
            f"The user {endpoint.user} of {endpoint.label} may not replicate",
            remedy=f'Run ALTER ROLE "{endpoint.user}" REPLICATION on the server.',
            server=endpoint.label,
        )
    _require(
        not standby,
        endpoint,
        "pg_is_in_recovery",
        "on",
        "Name the primary: a standby cannot mark the moment of a backup.",
    )
    _require(
        level in {"replica", "logical"},
        endpoint,
        "wal_level",
        level,
        "Set wal_level = replica and restart the server.",
    )
    _require(
        senders > 0,
        endpoint,
        "max_wal_senders",
        senders,
        "Set max_wal_senders to 10 (its default) and restart the server.",
    )
    _require(
        slots > 0 or not slot,
        endpoint,
        "max_replication_slots",
        slots,
        "Set max_replication_slots to 10 (its default) and restart the server.",
    )
    identifier, timeline = wal.identify(endpoint)
    return Source(
        version=version,
        identifier=identifier,
        timeline=timeline,
        segment_bytes=segment_bytes,
        summarizes=summarizes == "on",
        superuser=superuser,
        tablespaces=spaces,
    )


def mark(endpoint: Endpoint) -> Marker:
    """Write a marker into the WAL, wait until it is on the server's disk, and return it.

    The marker is a message that nobody reads:
    https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-REPLICATION
    """
    with postgres_session.connect(endpoint, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = local")
        time: Any = connection.execute("SELECT pg_catalog.clock_timestamp()").fetchone()
        with connection.transaction():
            written: Any = connection.execute(
                "SELECT pg_catalog.pg_logical_emit_message(true, 'neuroca_backup', '')::text"
            ).fetchone()
            transactions: Any = connection.execute(
                "SELECT pg_catalog.pg_current_snapshot()::text"
            ).fetchone()
        end: Any = connection.execute(
            "SELECT pg_catalog.pg_current_wal_flush_lsn()::text"
        ).fetchone()
    return Marker(
        position=lsn.parse(written[0]),
        end=lsn.parse(end[0]),
        time=time[0].isoformat(),
        transactions=transactions[0],
    )


def _require_version(endpoint: Endpoint, version: str) -> None:
    client = tools.version("pg_basebackup")
    if tools.major(version) < OLDEST:
        raise IncompatibleVersionError(
            f"PostgreSQL {version} ({endpoint.label}) is too old for a physical backup",
            remedy=f"Use the engine `postgresql`, or a server of version {OLDEST} or newer.",
            server=version,
        )
    if tools.major(client) < tools.major(version):
        raise IncompatibleVersionError(
            f"pg_basebackup {client} cannot back up a server of version {version} "
            f"({endpoint.label})",
            remedy=f"Install PostgreSQL {tools.major(version)}, or name the folder of its programs "
            "in NEUROCA_POSTGRES_BIN.",
            client=client,
            server=version,
        )


def _require(met: bool, endpoint: Endpoint, setting: str, value: object, remedy: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not met:
        raise ConfigurationError(
            f"{setting} of PostgreSQL at {endpoint.label} is {value}: no physical backup can be "
            "taken there",
            remedy=remedy,
            server=endpoint.label,
            setting=setting,
            value=str(value),
        )
