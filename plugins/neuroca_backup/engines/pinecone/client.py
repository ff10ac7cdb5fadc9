"""Pinecone's own client: how it is opened, and what its errors mean."""

from __future__ import annotations

from collections.abc import Iterator
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


def _translation(error: Any, endpoint: Endpoint) -> BackupError:
    from pinecone import errors  # noqa: PLC0415 - an optional package

    where = f"Pinecone at {endpoint.label or HOST}"
    words = http_service.without_secret(error, endpoint)
    status = getattr(error, "status_code", None)
    facts: dict[str, Any] = {"server": endpoint.label or HOST, "status": status}
    if isinstance(error, errors.RateLimitError):
        return InterruptedToolError(
            f"{where} limits how often it may be asked: {words}",
            remedy="It is tried again. Where it stays so, run the backup at another time, or ask "
            "Pinecone for a higher limit.",
            retry_after=error.retry_after,
            **facts,
        )
    if isinstance(error, (errors.UnauthorizedError, errors.ForbiddenError)):
        return AccessDeniedError(
            f"{where} refused the key: {words}",
            remedy="Correct the connection's password. To dump, the key needs the roles "
            "ControlPlaneViewer and DataPlaneViewer; to restore, ProjectEditor.",
            **facts,
        )
    if isinstance(error, errors.NotFoundError):
        return NotFoundError(
            f"{where} has no such thing: {words}",
            remedy="Look whether the index or namespace was deleted or renamed meanwhile.",
            **facts,
        )
    if isinstance(error, errors.ConflictError):
        return AlreadyExistsError(
            f"{where}: {words}", remedy="Look who creates it at the same time.", **facts
        )
    lost = (errors.PineconeConnectionError, errors.PineconeTimeoutError, errors.ServiceError)
    if isinstance(error, (*lost, errors.ResponseParsingError)):
        return UnreachableError(
            f"{where} did not answer as it should ({type(error).__name__}: {words})",
            remedy="It is tried again; check the network, and https://status.pinecone.io.",
            **facts,
        )
    return PermanentError(
        f"{where} refused: {words}",
        remedy="Its words say why; see https://docs.pinecone.io/reference/api/errors.",
        **facts,
    )
