"""Sessions with a MongoDB server: how to open one, and what its errors mean here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pymongo
from pymongo import errors as driver

from neuroca_backup.errors import (
    AccessDeniedError,
    AlreadyExistsError,
    BackupError,
    ConfigurationError,
    IncompatibleVersionError,
    NotFoundError,
    PermanentError,
    TransientError,
    UnreachableError,
)
from neuroca_backup.model.endpoint import Endpoint

Client = pymongo.MongoClient[dict[str, Any]]
Database = pymongo.database.Database[dict[str, Any]]

# What a connection's extra may say: the driver's own words, and those of Airflow's Mongo provider
# (`srv`, `ssl`, `allow_insecure`). https://www.mongodb.com/docs/manual/reference/connection-string/
ALLOWED_EXTRA = frozenset(
    {
        "allow_insecure",
        "authMechanism",
        "authMechanismProperties",
        "authSource",
        "compressors",
        "connectTimeoutMS",
        "directConnection",
        "readPreference",
        "readPreferenceTags",
        "replicaSet",
        "serverSelectionTimeoutMS",
        "socketTimeoutMS",
        "srv",
        "ssl",
        "tls",
        "tlsAllowInvalidCertificates",
        "tlsAllowInvalidHostnames",
        "tlsCAFile",
        "tlsCRLFile",
        "tlsCertificateKeyFile",
        "tlsCertificateKeyFilePassword",
    }
)
_SECRET_EXTRA = ("tlsCertificateKeyFilePassword", "authMechanismProperties")
_DEFAULTS: Mapping[str, Any] = {
    "appname": "neuroca-backup",
    "serverSelectionTimeoutMS": 5_000,
    "connectTimeoutMS": 10_000,
}

_AGAIN = "It is tried again; if it keeps happening read the server's own log."
_REFUSED = frozenset({13, 18, 8000})
_TRANSIENT = frozenset(
    {6, 7, 43, 46, 50, 63, 64, 89, 91, 112, 117, 133, 134, 136, 175, 189, 202, 237, 239, 246, 262}
    | {9001, 10107, 11600, 11601, 11602, 13388, 13435, 13436}
)
# https://github.com/mongodb/mongo/blob/master/src/mongo/base/error_codes.yml
_BY_CODE: tuple[tuple[frozenset[int], tuple[type[BackupError], str]], ...] = (
    (
        _REFUSED,
        (AccessDeniedError, "Check the connection's user, password, authSource and roles."),
    ),
    (_TRANSIENT, (TransientError, _AGAIN)),
    (
        frozenset({26, 73}),
        (NotFoundError, "Check the name of the database or the collection."),
    ),
    (
        frozenset({48}),
        (AlreadyExistsError, "Remove the collection of that name, or choose another."),
    ),
)
_WORD_LIMIT = 300


@contextmanager
def connect(endpoint: Endpoint) -> Iterator[Client]:
    """Open a client for the length of the block; its errors are translated as by `translated`.

    Raises:
        ConfigurationError: The endpoint's extra has a word that is not allowed there, or a value
            that the driver refuses.
    """
    with translated(endpoint), pymongo.MongoClient(**_parameters(endpoint)) as client:
        yield client


@contextmanager
def translated(endpoint: Endpoint) -> Iterator[None]:
    """Turn every driver error of the block into one of this project's, without any secret."""
    try:
        yield
    except driver.PyMongoError as error:
        # The original is cut off: it may quote documents, and its frames hold the password.
        raise _translation(error, endpoint) from None


def version(client: Client) -> str:
    """Return the server's version, e.g. `6.0.5`; refuse a mongos.

    Raises:
        ConfigurationError: It is the router of a sharded cluster, whose oplogs are elsewhere.
    """
    if client.admin.command("hello").get("msg") == "isdbgrid":
        raise ConfigurationError(
            "The connection leads to mongos, the router of a sharded cluster",
            remedy="Sharded clusters cannot be backed up consistently this way; use a snapshot of "
            "all shards, or the service's own backups.",
        )
    return str(client.admin.command("buildInfo")["version"])


def release(text: str) -> tuple[int, int]:
    """Return the two numbers of `6.0.5` or `6.0` that decide compatibility."""
    major, minor = [*text.split("."), "0"][:2]
    return int(major), int(minor)


def feature_version(client: Client) -> str:
    """Return the featureCompatibilityVersion, e.g. `6.0`; "" where this user may not ask."""
    try:
        answer = client.admin.command("getParameter", 1, featureCompatibilityVersion=1)
    except driver.OperationFailure as error:
        if error.code in _REFUSED:
            return ""
        raise
    return str(answer["featureCompatibilityVersion"]["version"])


def require_version(found: str, least: tuple[int, int], purpose: str) -> None:
    """Raise `IncompatibleVersionError` when the server `found` is older than `least`."""
    if release(found) < least:
        raise IncompatibleVersionError(
            f"MongoDB {found} is too old for {purpose}",
            remedy=f"It needs {least[0]}.{least[1]} or newer.",
            server=found,
        )


def _parameters(endpoint: Endpoint) -> dict[str, Any]:
    unknown = sorted(set(endpoint.extra) - ALLOWED_EXTRA)
    if unknown:
        raise ConfigurationError(
            f"The connection to {endpoint.label} has unknown extra words: {', '.join(unknown)}",
            remedy=f"Use only: {', '.join(sorted(ALLOWED_EXTRA))}.",
            server=endpoint.label,
            value=unknown,
        )
    extra = dict(endpoint.extra)
    srv = _true(extra.pop("srv", False))
    if srv and endpoint.port:
        raise ConfigurationError(
            f"The connection to {endpoint.label} has `srv` and a port",
            remedy="Leave the port empty: DNS names it.",
            value=endpoint.port,
        )
    secure = _true(extra.pop("ssl", False)) or _true(extra.pop("tls", False))
    if _true(extra.pop("allow_insecure", False)) and secure:
        extra["tlsAllowInvalidCertificates"] = True
    if secure:
        extra["tls"] = True
    if srv:
        place: dict[str, Any] = {"host": f"mongodb+srv://{endpoint.host}/"}
    else:
        port = endpoint.port or 27017
        hosts = (endpoint.host or "localhost").split(",")
        place = {"host": [host if ":" in host else f"{host}:{port}" for host in hosts]}
    login = {"username": endpoint.user, "password": endpoint.password} if endpoint.user else {}
    # Airflow's provider puts the connection's database into the URI, where it says who knows the
    # user unless authSource does.
    if endpoint.user and endpoint.database:
        extra.setdefault("authSource", endpoint.database)
    return {**_DEFAULTS, **place, **login, **extra}


def _true(value: Any) -> bool:
    return str(value).lower() == "true"


def _translation(error: driver.PyMongoError, endpoint: Endpoint) -> BackupError:
    kind, remedy = _meaning(error)
    words = _words(error)
    secrets = (endpoint.password, *(endpoint.extra.get(name) for name in _SECRET_EXTRA))
    for secret in filter(None, secrets):
        words = words.replace(str(secret), "***")
    verb = "did not answer" if issubclass(kind, UnreachableError) else "refused"
    return kind(
        f"MongoDB at {endpoint.label} {verb}: {words[:_WORD_LIMIT]}",
        remedy=remedy,
        server=endpoint.label,
        code=getattr(error, "code", None),
    )


def _words(error: driver.PyMongoError) -> str:
    if isinstance(error, driver.BulkWriteError):
        # The server's sentence quotes documents.
        found = error.details.get("writeErrors") or error.details.get("writeConcernErrors") or [{}]
        return f"{len(found)} writes failed, the first with code {found[0].get('code')}"
    if isinstance(error, driver.DuplicateKeyError):
        return "two documents have the same key in a unique index"
    details = getattr(error, "details", None)
    if isinstance(details, Mapping) and "errmsg" in details:
        return str(details["errmsg"])
    return " ".join(str(error).split()) or type(error).__name__


def _meaning(error: driver.PyMongoError) -> tuple[type[BackupError], str]:
    code = _code(error)
    for codes, meaning in _BY_CODE:
        if code in codes:
            return meaning
    if isinstance(error, driver.ConnectionFailure):
        return UnreachableError, "Check that the server runs and that the network reaches it."
    if isinstance(error, driver.ConfigurationError | driver.InvalidURI | driver.InvalidName):
        return ConfigurationError, "Correct the connection's host, port and extra."
    return PermanentError, "Read the server's words above; its own log has the details."


def _code(error: driver.PyMongoError) -> int | None:
    if isinstance(error, driver.BulkWriteError):
        found = error.details.get("writeErrors") or error.details.get("writeConcernErrors") or [{}]
        code = found[0].get("code")
    else:
        code = getattr(error, "code", None)
    return code if isinstance(code, int) else None
