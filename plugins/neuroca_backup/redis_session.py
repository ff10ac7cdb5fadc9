"""Sessions with a Redis server: how to open one, what it says of itself, what its errors mean."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.client import Pipeline
from redis.retry import Retry

from neuroca_backup.errors import (
    AccessDeniedError,
    BackupError,
    ConfigurationError,
    PermanentError,
    TransientError,
    UnreachableError,
)
from neuroca_backup.model.endpoint import Endpoint

DEFAULT_PORT = 6379

# The words of Airflow's Redis connections.
TLS_WORDS = (
    "ssl_cert_reqs",
    "ssl_ca_certs",
    "ssl_certfile",
    "ssl_keyfile",
    "ssl_check_hostname",
)
_CONNECT_SECONDS = 10
# DUMP of a large key, or a server that forks, may be silent for a while.
_SILENT_SECONDS = 120

GRANT = (
    "ACL SETUSER <user> on ><password> +ping +info +sync +psync +replconf (Redis 6 and newer); "
    "a managed service that offers none of these cannot be dumped this way."
)
# How an error reply begins: https://redis.io/docs/latest/develop/reference/protocol-spec/
BY_REPLY: Mapping[str, tuple[type[BackupError], str]] = {
    "NOAUTH": (AccessDeniedError, "Check the connection's login and password."),
    "WRONGPASS": (AccessDeniedError, "Check the connection's login and password."),
    "NOPERM": (
        AccessDeniedError,
        f"Grant the user what it lacks (docs/reference/redis.md). To dump: {GRANT}",
    ),
    "DENIED": (AccessDeniedError, "Set a password on the server, and in the connection."),
    "LOADING": (TransientError, "It is tried again; the server is still loading its data."),
    "MASTERDOWN": (TransientError, "It is tried again; the replica has lost its master."),
    "NOMASTERLINK": (TransientError, "It is tried again; the replica has lost its master."),
    "BUSY": (TransientError, "It is tried again; the server runs a script."),
    "READONLY": (ConfigurationError, "Name the master, not a replica of it."),
    "MISCONF": (
        PermanentError,
        "The server cannot write its snapshots: make room on its disk and read its log.",
    ),
    "OOM": (PermanentError, "Raise the target's maxmemory, or restore into a larger server."),
    "MOVED": (ConfigurationError, "Name a server that is not in cluster mode."),
}


@dataclass(frozen=True, slots=True)
class State:
    """What a server says of itself in INFO and CONFIG."""

    info: Mapping[str, Any]

    @property
    def version(self) -> str:
        """Its version, e.g. `6.2.5`."""
        return str(self.info["redis_version"])

    @property
    def run_id(self) -> str:
        """What is another with every start."""
        return str(self.info.get("run_id", ""))

    @property
    def role(self) -> str:
        """`master` or `slave`."""
        return str(self.info.get("role", ""))

    @property
    def replication_id(self) -> str:
        """The history that its replicas follow."""
        return str(self.info.get("master_replid", ""))

    @property
    def databases(self) -> dict[int, int]:
        """The number of keys of each database that has any, expired ones included."""
        return {
            int(name[2:]): int(words["keys"])
            for name, words in self.info.items()
            if name.startswith("db") and name[2:].isdigit() and isinstance(words, dict)
        }


class _Client(redis.Redis):
    """A client whose every command is translated: with two of them open, each tells its own."""

    endpoint: Endpoint

    def execute_command(self, *words: Any, **options: Any) -> Any:
        with translated(self.endpoint):
            untyped: Any = super()
            return untyped.execute_command(*words, **options)

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> _Pipeline:  # noqa: FBT001, FBT002 - the library's own
        made = _Pipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)
        made.endpoint = self.endpoint
        return made


class _Pipeline(Pipeline):
    """As `_Client`, for commands that are sent together."""

    endpoint: Endpoint

    def execute(self, raise_on_error: bool = True) -> list[Any]:  # noqa: FBT001, FBT002 - the library's own
        with translated(self.endpoint):
            untyped: Any = super()
            answers: list[Any] = untyped.execute(raise_on_error)
            return answers


@contextmanager
def connect(endpoint: Endpoint, *, database: int = 0) -> Iterator[redis.Redis]:
    """Open a session for the length of the block; its errors are translated as by `translated`.

    Bytes stay bytes. Nothing is sent a second time by itself. The first command logs in.
    """
    secure: dict[str, Any] = {}
    if endpoint.extra.get("ssl"):
        given = {word: endpoint.extra[word] for word in TLS_WORDS if word in endpoint.extra}
        secure = {"ssl": True, **given}
    client = _Client(
        host=endpoint.host or "localhost",
        port=endpoint.port or DEFAULT_PORT,
        username=endpoint.user or None,
        password=endpoint.password or None,
        db=database,
        protocol=2,
        retry=Retry(NoBackoff(), 0),
        socket_connect_timeout=_CONNECT_SECONDS,
        socket_timeout=_SILENT_SECONDS,
        socket_keepalive=True,
        **secure,
    )
    client.endpoint = endpoint
    with client:
        yield client


def call(client: redis.Redis, *words: bytes | str | int) -> Any:
    """Return the answer to a command that the client library has no method for."""
    untyped: Any = client
    return untyped.execute_command(*words)


def state(endpoint: Endpoint) -> State:
    """Log in and return what the server says of itself.

    Raises:
        ConfigurationError: It is in cluster mode, or is a sentinel.
        TransientError: It is still loading its data.
    """
    with connect(endpoint) as client:
        found: Any = client.info()
    if found.get("redis_mode", "standalone") != "standalone" or found.get("cluster_enabled"):
        raise ConfigurationError(
            f"Redis at {endpoint.label} is in {found.get('redis_mode')} mode: it holds a part of "
            "the data, or none",
            remedy="Name a server that is not in cluster mode.",
            server=endpoint.label,
        )
    if found.get("loading") or found.get("async_loading"):
        raise TransientError(
            f"Redis at {endpoint.label} is still loading its data",
            remedy=BY_REPLY["LOADING"][1],
            server=endpoint.label,
        )
    return State(found)


@contextmanager
def translated(endpoint: Endpoint) -> Iterator[None]:
    """Turn the client's errors into ours. An error reply may quote data: its first word is kept."""
    try:
        yield
    except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError) as error:
        # Wrong credentials and a server that still loads count as errors of the connection here.
        found = _by_class(error) or _by_reply(str(error)) or _by_tls(error)
        kind, what, remedy = found or (
            UnreachableError,
            "does not answer",
            "It is tried again; check that the server runs and that the network reaches it.",
        )
        raise _error(kind, endpoint, what, remedy) from None
    except redis.exceptions.RedisError as error:
        found = _by_class(error) or _by_reply(str(error))
        kind, what, remedy = found or (
            PermanentError,
            f"refused a command ({type(error).__name__}: {_first_words(str(error))})",
            "Read the server's log; the user may lack a permission.",
        )
        raise _error(kind, endpoint, what, remedy) from None


def _error(kind: type[BackupError], endpoint: Endpoint, what: str, remedy: str) -> BackupError:
    return kind(f"Redis at {endpoint.label} {what}", remedy=remedy, server=endpoint.label)


def _by_class(error: Exception) -> tuple[type[BackupError], str, str] | None:
    # redis-py takes the first word of some replies away and makes a class of it.
    for reply, one in (
        ("WRONGPASS", redis.exceptions.AuthenticationError),
        ("LOADING", redis.exceptions.BusyLoadingError),
        ("NOPERM", redis.exceptions.NoPermissionError),
        ("READONLY", redis.exceptions.ReadOnlyError),
        ("OOM", redis.exceptions.OutOfMemoryError),
    ):
        if isinstance(error, one):
            kind, remedy = BY_REPLY[reply]
            return kind, f"answers {reply}", remedy
    return None


def _by_reply(text: str) -> tuple[type[BackupError], str, str] | None:
    for reply, (kind, remedy) in BY_REPLY.items():
        if text.startswith(reply):
            return kind, f"answers {reply}", remedy
    return None


def _by_tls(error: Exception) -> tuple[type[BackupError], str, str] | None:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError | FileNotFoundError):
            return (
                ConfigurationError,
                f"cannot be reached by TLS ({getattr(cause, 'reason', None) or 'no such file'})",
                "Check ssl, ssl_ca_certs, ssl_certfile and ssl_keyfile in the connection's extra.",
            )
        cause = cause.__cause__ or cause.__context__
    return None


def _first_words(text: str) -> str:
    """Return the beginning of an error reply, cut where it may begin to quote arguments."""
    return re.split("[,'`]", text, maxsplit=1)[0][:60].strip()
