"""Qdrant's own client: how it is opened, and what its errors mean."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import TYPE_CHECKING, Any

from neuroca_backup.errors import (
    AccessDeniedError,
    AlreadyExistsError,
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
    from qdrant_client import QdrantClient

PORT = 6333
# Of one request: a page of points, or a batch that has to be on disk before it is answered.
_SECONDS = 120
_VERIFY = "verify"  # in the connection's extra: false, or the path of a CA bundle

_REFUSED = {
    401: (AccessDeniedError, "Correct the connection's password, which is the API key."),
    403: (
        AccessDeniedError,
        "Use a key that may read all collections; to restore one that may manage them.",
    ),
    404: (NotFoundError, "Look whether it was deleted or renamed meanwhile."),
    409: (AlreadyExistsError, "Look who creates it at the same time, and try again."),
}


def library() -> Any:
    """Return the module `qdrant_client`.

    Raises:
        ToolMissingError: It is not installed.
    """
    try:
        import qdrant_client  # noqa: PLC0415 - an optional package
    except ImportError:
        raise ToolMissingError(
            "The Python package qdrant-client is not installed",
            remedy="Install it on every worker: pip install neuroca-backup[qdrant]",
            package="qdrant-client",
        ) from None
    return qdrant_client


def version() -> str:
    """Return the version of the client."""
    return metadata.version("qdrant-client")


@contextmanager
def opened(endpoint: Endpoint) -> Iterator[QdrantClient]:
    """Give a client of `endpoint` for the length of the block."""
    verify = endpoint.extra.get(_VERIFY, True)
    if not isinstance(verify, (bool, str)):
        raise ConfigurationError(
            f"{_VERIFY} of the connection's extra is {verify!r}",
            remedy="Write true, false, or the path of a file of CA certificates.",
            path=f"extra.{_VERIFY}",
            value=verify,
        )
    http_service.quieten("httpx")
    with warnings.catch_warnings():
        # That a key goes over plain http was the connection's own decision.
        warnings.filterwarnings("ignore", message="Api key is used with an insecure connection")
        client: QdrantClient = library().QdrantClient(
            url=http_service.address(endpoint, host="localhost", port=PORT),
            api_key=endpoint.password or None,
            timeout=_SECONDS,
            check_compatibility=False,
            verify=verify,
        )
    try:
        yield client
    finally:
        client.close()


@contextmanager
def translated(endpoint: Endpoint) -> Iterator[None]:
    """Turn an error of the client into one of ours, without the key and without its chain."""
    from qdrant_client.common.client_exceptions import (  # noqa: PLC0415 - an optional package
        ResourceExhaustedResponse,
    )
    from qdrant_client.http import exceptions  # noqa: PLC0415 - as above

    where = f"Qdrant at {endpoint.label}"
    try:
        yield
    except ResourceExhaustedResponse as error:
        raise InterruptedToolError(
            f"{where} limits how often it may be asked",
            remedy="It is tried again; raise the limit of its strict mode if it stays so.",
            server=endpoint.label,
            retry_after=error.retry_after_s,
        ) from None
    except exceptions.UnexpectedResponse as error:
        raise _refused(where, error, endpoint) from None
    except exceptions.ResponseHandlingException as error:
        raise _unanswered(where, error.source, endpoint) from None


def _refused(where: str, error: Any, endpoint: Endpoint) -> Exception:
    status = int(error.status_code or 0)
    content = error.content.decode(errors="replace")
    words = f"{where} answered {status}: {http_service.without_secret(content, endpoint)}"
    if status in {408, 429} or status >= 500:
        return UnreachableError(
            words, remedy="It is tried again; look at the server's log.", status=status
        )
    kind, remedy = _REFUSED.get(
        status, (PermanentError, "Its words say why; look at the server's log.")
    )
    return kind(words, remedy=remedy, server=endpoint.label, status=status)


def _unanswered(where: str, source: Exception, endpoint: Endpoint) -> Exception:
    words = http_service.without_secret(source, endpoint)
    if isinstance(source, ValueError) and type(source).__name__ == "ValidationError":
        return PermanentError(
            f"{where} answered what qdrant-client {version()} does not understand: {words}",
            remedy="Install a client of the server's minor version or the next one.",
            server=endpoint.label,
        )
    return UnreachableError(
        f"{where} did not answer ({type(source).__name__}: {words})",
        remedy="It is tried again; check that the server runs and that the network reaches it.",
        server=endpoint.label,
    )
