"""Pinecone's own client: how it is opened, and what its errors mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from typing import TYPE_CHECKING, Any

from neuroca_backup.errors import (
    AccessDeniedError,
    AlreadyExistsError,
    BackupError,
    ConfigurationError,
    InterruptedToolError,
    NotFoundError,
    PermanentError,
    ToolMissingError,
    UnreachableError,
)
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.vectors import http_service

if TYPE_CHECKING:
    from pinecone import Index, Pinecone

HOST, PORT = "api.pinecone.io", 443
# The service has no version of its own; this is of the API that the client speaks since 10.0,
# 2026-07, written as a version.
API_VERSION = "2026.07"
_OLDEST_CLIENT = 10
_SECONDS = 60.0  # of one attempt; the client makes four by itself

_KEY = (
    AccessDeniedError,
    "refused the key",
    "Correct the connection's password. To dump, the key needs the roles ControlPlaneViewer and "
    "DataPlaneViewer; to restore, ProjectEditor.",
)
_AWAY = (
    UnreachableError,
    "did not answer as it should",
    "It is tried again; check the network, and https://status.pinecone.io.",
)
# By the names of the client's classes, a class before those that it is made from.
_MEANINGS: Mapping[str, tuple[type[BackupError], str, str]] = {
    "RateLimitError": (
        InterruptedToolError,
        "limits how often it may be asked",
        "It is tried again. Where it stays so, run the backup at another time, or ask Pinecone "
        "for a higher limit.",
    ),
    "UnauthorizedError": _KEY,
    "ForbiddenError": _KEY,
    "NotFoundError": (
        NotFoundError,
        "has no such thing",
        "Look whether the index or namespace was deleted or renamed meanwhile.",
    ),
    "ConflictError": (
        AlreadyExistsError,
        "has it already",
        "Look who creates it at the same time.",
    ),
    "ResponseParsingError": (
        PermanentError,
        "answered what this client does not understand",
        "Install a newer client, or leave the index that it is about out of the source's "
        "`indexes`.",
    ),
    "PineconeConnectionError": _AWAY,
    "PineconeTimeoutError": _AWAY,
    "ServiceError": _AWAY,
    "PineconeException": (
        PermanentError,
        "refused",
        "Its words say why; see https://docs.pinecone.io/reference/api/errors.",
    ),
}


def library() -> Any:
    """Return the module `pinecone`.

    Raises:
        ToolMissingError: It is not installed, or too old to speak this API.
    """
    try:
        import pinecone  # noqa: PLC0415 - an optional package
    except ImportError:
        found = "is not installed"
    else:
        if int(version().partition(".")[0]) >= _OLDEST_CLIENT:
            return pinecone
        found = f"is version {version()}, and this engine needs {_OLDEST_CLIENT} or newer"
    raise ToolMissingError(
        f"The Python package pinecone {found}",
        remedy="Install it on every worker: pip install neuroca-backup[pinecone]",
        package="pinecone",
    )


def version() -> str:
    """Return the version of the client."""
    return metadata.version("pinecone")


@contextmanager
def opened(endpoint: Endpoint) -> Iterator[Pinecone]:
    """Give a client of the control plane for the length of the block."""
    pinecone = library()
    if not endpoint.password:
        raise ConfigurationError(
            "The Pinecone connection has no API key",
            remedy="Write the key as the connection's password.",
            path="password",
        )
    url = http_service.address(endpoint, host=HOST, port=PORT)
    http_service.quieten("pinecone", "httpx")
    with translated(endpoint):
        client: Pinecone = pinecone.Pinecone(
            api_key=endpoint.password, host=url, timeout=_SECONDS, source_tag="neuroca_backup"
        )
    try:
        yield client
    finally:
        client.close()


def index(host: str, endpoint: Endpoint) -> Index:
    """Return a client of one index, of which the control plane has told the host."""
    found: Index = library().Index(
        host=host, api_key=endpoint.password, timeout=_SECONDS, source_tag="neuroca_backup"
    )
    return found


@contextmanager
def translated(endpoint: Endpoint) -> Iterator[None]:
    """Turn an error of the client into one of ours, without the key and without its chain."""
    from pinecone import exceptions  # noqa: PLC0415 - an optional package

    try:
        yield
    except exceptions.PineconeException as error:
        raise _translation(error, endpoint) from None


def _translation(error: Exception, endpoint: Endpoint) -> BackupError:
    names = [kind.__name__ for kind in type(error).__mro__]
    kind, what, remedy = next(
        (_MEANINGS[name] for name in names if name in _MEANINGS), _MEANINGS["PineconeException"]
    )
    where = endpoint.label or HOST
    facts = {word: getattr(error, word, None) for word in ("status_code", "retry_after")}
    return kind(
        f"Pinecone at {where} {what}: {http_service.without_secret(error, endpoint)}",
        remedy=remedy,
        server=where,
        **facts,
    )
