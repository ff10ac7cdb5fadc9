"""Sessions with a PostgreSQL server: how to open one, and what its errors mean here.

Both the catalog and the PostgreSQL engine use it, so that a refused connection or a wrong password
is the same error everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.rows import TupleRow

from neuroca_backup.errors import (
    AccessDeniedError,
    AlreadyExistsError,
    BackupError,
    ConfigurationError,
    DamagedError,
    NotFoundError,
    PermanentError,
    TransientError,
    UnreachableError,
)
from neuroca_backup.model.endpoint import Endpoint

APPLICATION_NAME = "neuroca-backup"
DEFAULT_DATABASE = "postgres"  # every server has it, so it can be asked about the others

# What a connection's extra may say, in libpq's words:
# https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
ALLOWED_EXTRA = frozenset(
    {
        "channel_binding",
        "connect_timeout",
        "gssencmode",
        "hostaddr",
        "keepalives",
        "keepalives_count",
        "keepalives_idle",
        "keepalives_interval",
        "krbsrvname",
        "passfile",
        "require_auth",
        "sslcert",
        "sslcrl",
        "sslkey",
        "sslmode",
        "sslnegotiation",
        "sslpassword",
        "sslrootcert",
        "ssl_min_protocol_version",
        "target_session_attrs",
        "tcp_user_timeout",
    }
)
_DEFAULTS: Mapping[str, str | int] = {
    "application_name": APPLICATION_NAME,
    "client_encoding": "UTF8",
    "connect_timeout": 10,  # seconds for each address of the host
    # A peer that vanished without a word is noticed in about a minute, not in two hours.
    "keepalives_idle": 30,  # seconds
    "keepalives_interval": 10,  # seconds
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,  # milliseconds
    "options": "-c TimeZone=UTC",
}
_SECRET_EXTRA = ("sslpassword",)

# A login that fails has no SQLSTATE in libpq, only the server's sentence. A server that speaks
# another language than English is then called unreachable, which is retried and fails as well.
_LOGIN_REFUSED = re.compile(
    r"authentication failed|no password supplied|no pg_hba\.conf entry|pg_hba\.conf rejects"
    r'|role "[^"]*" does not exist|is not permitted to log in|permission denied for database'
)
_NO_DATABASE = re.compile(r'database "[^"]*" does not exist')
_MISCONFIGURED = re.compile(
    r"invalid \w+ value|invalid connection option|does not support SSL|certificate verify failed"
    r"|certificate file|private key file|root\.crt|does not match host name"
    r"|authentication method requirement"
)

_REMEDY = "Read the server's words above; its own log has the details."
# SQLSTATE, or its class of two characters, to the error and its remedy:
# https://www.postgresql.org/docs/current/errcodes-appendix.html
_BY_STATE: Mapping[str, tuple[type[BackupError], str]] = {
    "08": (UnreachableError, "Check that the server runs and that the network reaches it."),
    "28": (AccessDeniedError, "Check the connection's user, its password and pg_hba.conf."),
    "3D": (NotFoundError, "Check the connection's database name, or create the database."),
    "3F": (NotFoundError, "Check the name of the schema."),
    "40": (TransientError, "It is tried again; another session was in the way."),
    "42501": (AccessDeniedError, "Grant the connection's user what it lacks."),
    "42704": (NotFoundError, "Check the name of the object."),
    "42P01": (NotFoundError, "Check the name of the table."),
    "42P04": (AlreadyExistsError, "Choose another name, or remove the database of that name."),
    "42P06": (AlreadyExistsError, "Choose another name, or remove the schema of that name."),
    "42P07": (AlreadyExistsError, "Choose another name, or remove the object of that name."),
    "53100": (PermanentError, "Make room on the server's disk."),
    "53": (TransientError, "It is tried again; the server lacked memory or connection slots."),
    "55006": (TransientError, "It is tried again; another session holds the object."),
    "55P03": (TransientError, "It is tried again; another session holds the lock."),
    "57014": (TransientError, "It is tried again; a timeout or a person cancelled the query."),
    "XX001": (DamagedError, "The server's own data is damaged; its log names the file."),
    "XX002": (DamagedError, "An index of the server is damaged; REINDEX it."),
    "57P": (UnreachableError, "It is tried again; the server is starting or stopping."),
}


@contextmanager
def connect(
    endpoint: Endpoint,
    *,
    database: str | None = None,
    autocommit: bool = False,
    replication: bool = False,
) -> Iterator[psycopg.Connection[TupleRow]]:
    """Open a session for the length of the block; its errors are translated as by `translated`.

    The session speaks UTF-8 and UTC. Without `autocommit` the block is one transaction: committed
    when it ends, rolled back when it raises. `database` overrides the endpoint's own. With
    `replication` it is a session of the replication protocol, which takes commands, no SQL.

    Raises:
        ConfigurationError: The endpoint's extra has a word that libpq does not know, or that is
            not allowed there.
        UnreachableError, AccessDeniedError, NotFoundError: The login failed.
    """
    with (
        translated(endpoint),
        psycopg.connect(
            autocommit=autocommit or replication,
            prepare_threshold=None,  # prepared statements do not survive a connection pooler
            **_parameters(endpoint, database, replication=replication),
        ) as connection,
    ):
        yield connection


@contextmanager
def translated(endpoint: Endpoint) -> Iterator[None]:
    """Turn every psycopg error of the block into one of this project's, without any secret.

    Catch a psycopg error inside the block where it means something particular there.
    """
    try:
        yield
    except psycopg.Error as error:
        # The original is cut off: its frames hold the connection's parameters.
        raise _translation(error, endpoint) from None


def _parameters(endpoint: Endpoint, database: str | None, *, replication: bool) -> dict[str, Any]:
    unknown = sorted(set(endpoint.extra) - ALLOWED_EXTRA)
    if unknown:
        raise ConfigurationError(
            f"The connection to {endpoint.label} has unknown extra words: {', '.join(unknown)}",
            remedy=f"Use only: {', '.join(sorted(ALLOWED_EXTRA))}.",
            server=endpoint.label,
            value=unknown,
        )
    address = {
        "host": endpoint.host,
        "port": endpoint.port,
        "user": endpoint.user,
        "password": endpoint.password,
        "dbname": database or endpoint.database or DEFAULT_DATABASE,
    }
    given = {name: value for name, value in address.items() if value}
    if replication:
        given["replication"] = "true"
    extra = {name: _word(value) for name, value in endpoint.extra.items()}
    return {**_DEFAULTS, **extra, **given}


def _word(value: Any) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


def _translation(error: psycopg.Error, endpoint: Endpoint) -> BackupError:
    state = error.sqlstate or ""
    kind, remedy = _by_state(state) if state else _by_words(error)
    words = error.diag.message_primary or " ".join(str(error).split()) or type(error).__name__
    for secret in (endpoint.password, *(endpoint.extra.get(name) for name in _SECRET_EXTRA)):
        if secret:
            words = words.replace(str(secret), "***")
    verb = "did not answer" if issubclass(kind, UnreachableError) else "refused"
    return kind(
        f"PostgreSQL at {endpoint.label} {verb}: {words}",
        remedy=remedy,
        server=endpoint.label,
        sqlstate=state,
    )


def _by_state(state: str) -> tuple[type[BackupError], str]:
    for length in (5, 3, 2):
        if (known := _BY_STATE.get(state[:length])) is not None:
            return known
    return PermanentError, _REMEDY


def _by_words(error: psycopg.Error) -> tuple[type[BackupError], str]:
    words = str(error)
    if _LOGIN_REFUSED.search(words):
        return _BY_STATE["28"]
    if _NO_DATABASE.search(words):
        return _BY_STATE["3D"]
    if _MISCONFIGURED.search(words):
        return ConfigurationError, "Correct the connection's extra (sslmode and its files)."
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return _BY_STATE["08"]
    return PermanentError, _REMEDY
