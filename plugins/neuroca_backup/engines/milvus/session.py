"""Talking to Milvus: clients by database, and its errors in our words."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, Self

from neuroca_backup.errors import (
    AccessDeniedError,
    BackupError,
    ConfigurationError,
    IncompatibleVersionError,
    NotFoundError,
    PermanentError,
    UnreachableError,
)

if TYPE_CHECKING:
    from types import TracebackType

    from neuroca_backup.model.endpoint import Endpoint

# By name: its stubs are not valid Python, which stops the type checker.
pymilvus: Any = import_module("pymilvus")
_grpc: Any = import_module("grpc")

# It logs every error with its traceback before it raises it; we say it once, in our words.
logging.getLogger("pymilvus").setLevel(logging.CRITICAL)

CONNECT_SECONDS = 10
CALL_SECONDS = 120
DEFAULT = "default"

# Codes of Milvus: https://github.com/milvus-io/milvus/blob/master/pkg/util/merr/errors.go
_FOR_NOW = {
    *(1, 2, 3, 4, 8, 9),  # not ready, unavailable, memory, too many requests, limited, denied
    *(500, 501, 502, 503, 504),  # a channel has no leader
    *(600, 601, 602, 603),  # a segment is not where it was
    *(900, 901, 902, 903),  # a node is away
}
_NO_COLLECTION, _NOT_LOADED, _NO_DATABASE = 100, 101, 800
_DENIED = {1400, 1401, 1402, 1403, 1404}
_UNIMPLEMENTED = 10
_WORDS_OF_DENIAL = ("auth check failure", "permission deny", "unauthenticated", "api key")
_WORDS_FOR_NOW = ("fail connecting", "connection refused", "unavailable", "deadline", "retry run")


class Session:
    """A server, with a client for each database that is asked for."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._clients: dict[str, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for client in self._clients.values():
            client.close()

    def client(self, database: str = "") -> Any:
        """Return the client of a database; "" is the connection's own.

        Raises:
            UnreachableError: There is no answer.
            AccessDeniedError: User, password or token are wrong.
        """
        name = database or self.endpoint.database or DEFAULT
        if name not in self._clients:
            with self.translated(f"logging in to database {name}"):
                self._clients[name] = pymilvus.MilvusClient(
                    **_words_of(self.endpoint),
                    db_name=name,
                    timeout=CONNECT_SECONDS,
                    dedicated=True,
                )
        return self._clients[name]

    def handler(self, database: str = "") -> Any:
        """Return what is below the client, for calls that the client has no word for.

        What else has them, `pymilvus.utility`, keeps connections for the whole process and is on
        its way out.
        """
        return self.client(database)._get_connection()  # noqa: SLF001 - see above

    def context(self, database: str = "") -> Any:
        """Return what tells `handler` the database of a call."""
        return self.client(database)._generate_call_context()  # noqa: SLF001 - see `handler`

    @contextmanager
    def translated(self, doing: str) -> Iterator[None]:
        """Turn an error of pymilvus into one of ours; the chain is cut, it may hold the token."""
        try:
            yield
        except pymilvus.MilvusException as error:
            # At a login only the cause tells a wrong password from a server that is away.
            cause = error.__cause__
            code, words = error.code, str(error.message)
            if isinstance(cause, _grpc.RpcError) and hasattr(cause, "details"):
                code, words = cause.code(), f"{words}: {cause.details()}"
            raise self._error(doing, code, words) from None
        except (_grpc.RpcError, _grpc.FutureTimeoutError) as error:
            code = error.code() if hasattr(error, "code") else "timeout"
            words = str(error.details()) if hasattr(error, "details") else "no answer"
            raise self._error(doing, code, words) from None

    def _error(self, doing: str, code: Any, message: str) -> BackupError:
        label = self.endpoint.label
        words = _without_secrets(message.partition("\n")[0], self.endpoint)[:500]
        kind, remedy = _meaning(code, message)
        return kind(
            f"Milvus at {label}, {doing}: {words}", remedy=remedy, server=label, code=str(code)
        )


def _meaning(code: Any, message: str) -> tuple[type[BackupError], str]:
    lowered = message.lower()
    named = str(getattr(code, "name", code))
    if (
        code in _DENIED
        or named in {"UNAUTHENTICATED", "PERMISSION_DENIED"}
        or any(word in lowered for word in _WORDS_OF_DENIAL)
    ):
        return AccessDeniedError, "Check user, password or token, and the user's privileges."
    if code == _NO_COLLECTION or "can't find collection" in lowered:
        return NotFoundError, "Was it dropped meanwhile? Take the backup again."
    if code == _NO_DATABASE or "database not found" in lowered:
        return NotFoundError, "Correct the connection's schema or the option `databases`."
    if code == _UNIMPLEMENTED or named == "UNIMPLEMENTED":
        return IncompatibleVersionError, "The server is too old for this; update it."
    if (
        code in _FOR_NOW
        or code == _NOT_LOADED
        or named in {"UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "timeout"}
        or any(word in lowered for word in _WORDS_FOR_NOW)
    ):
        return UnreachableError, "It is tried again; check that the server runs and is healthy."
    return PermanentError, "The server's log says more."


def _words_of(endpoint: Endpoint) -> dict[str, Any]:
    """Return the client's arguments; `extra` may hold `secure`, `token` and TLS file paths."""
    extra = endpoint.extra
    unknown = sorted(set(extra) - _EXTRA)
    if unknown:
        raise ConfigurationError(
            f"The connection to Milvus at {endpoint.label} has unknown extra words: "
            f"{', '.join(unknown)}",
            remedy=f"Known ones: {', '.join(sorted(_EXTRA))}.",
            value=unknown,
        )
    secure = bool(extra.get("secure"))
    words = {
        "uri": f"{'https' if secure else 'http'}://{endpoint.host}:{endpoint.port}",
        "user": endpoint.user,
        "password": endpoint.password,
        "token": str(extra.get("token") or ""),
    }
    return words | {word: extra[word] for word in _TLS if extra.get(word)}


# https://milvus.io/docs/tls.md
_TLS = frozenset(
    {"server_pem_path", "server_name", "ca_pem_path", "client_pem_path", "client_key_path"}
)
# What is embedded there is for the engine of semantic memory.
_EMBEDDING = {"embedding_model", "embedding_dimension"}
_EXTRA = _TLS | _EMBEDDING | {"secure", "token", "bulk_import_path", "bulk_import_server_path"}


def _without_secrets(text: str, endpoint: Endpoint) -> str:
    for secret in (endpoint.password, str(endpoint.extra.get("token") or "")):
        if secret:
            text = text.replace(secret, "***")
    return text
