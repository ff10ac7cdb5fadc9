"""Stores that are reached over HTTP: where they are, and how patiently they are asked."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from neuroca_backup.errors import ConfigurationError, TransientError, UnreachableError
from neuroca_backup.model.endpoint import Endpoint

Result = TypeVar("Result")

log = logging.getLogger(__name__)

# A rate limit is over within seconds, a node is replaced within a minute; what takes longer is
# for the scheduler's own retries.
PATIENCE_SECONDS = 90.0
_FIRST_PAUSE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 10.0
_LOOPBACK = {"localhost", "127.0.0.1"}


def address(endpoint: Endpoint, *, host: str = "", port: int) -> str:
    """Return `scheme://host:port`; `host` and `port` are used where the endpoint names none.

    The scheme is the one that the host begins with, or else what `https` of the connection's
    extra says (true, false), or else https unless the host is this machine: a key never goes
    over a network in clear because somebody has forgotten a word.

    Raises:
        ConfigurationError: `https` is no boolean, or the host holds a path or a login.
    """
    named = endpoint.host or host
    scheme, separator, rest = named.rpartition("://")
    bare = rest.rstrip("/")
    if not bare or any(sign in bare for sign in "/@? "):
        raise ConfigurationError(
            "The connection's host is no host's name",
            remedy="Write it as NAME or https://NAME; the port and the key have fields of "
            "their own.",
            path="host",
        )
    secure = endpoint.extra.get("https", bare not in _LOOPBACK)
    if not isinstance(secure, bool):
        raise ConfigurationError(
            f"https of the connection's extra is {secure!r}",
            remedy="Write true or false.",
            path="extra.https",
            value=secure,
        )
    if not separator:
        scheme = "https" if secure else "http"
    return f"{scheme}://{bare}:{endpoint.port or port}"


def patiently(call: Callable[[], Result]) -> Result:
    """Return what `call` returns; while it raises a `TransientError` call it again, for a while.

    Pauses double; where the error has a fact `retry_after` (seconds) it is obeyed. `call` must be
    safe to repeat.

    Raises:
        TransientError: The last one, after PATIENCE_SECONDS.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    pause = _FIRST_PAUSE_SECONDS
    while True:
        try:
            return call()
        except TransientError as error:
            wait = max(pause, float(error.facts.get("retry_after") or 0))
            if time.monotonic() + wait > deadline:
                raise
            log.info("%s: trying again in %.1f s", error.problem, wait)
        time.sleep(wait)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def until(reached: Callable[[], str], *, seconds: float, what: str) -> None:
    """Call `reached` until it returns "", at growing intervals; otherwise it says how far it is.

    Raises:
        UnreachableError: It was not reached within `seconds`; has what was said last.
    """
    deadline = time.monotonic() + seconds
    pause = 0.05
    while missing := reached():
        if time.monotonic() + pause > deadline:
            raise UnreachableError(
                f"{what} within {seconds:.0f} s: {missing}",
                remedy="It is tried again; if it stays so, look at the service's own state.",
                seconds=seconds,
            )
        time.sleep(pause)
        pause = min(1.5 * pause, 5.0)


def without_secret(words: object, endpoint: Endpoint) -> str:
    """Return a vendor's words as one line of at most 300 characters, without the key."""
    text = " ".join(str(words).split())
    if endpoint.password:
        text = text.replace(endpoint.password, "***")
    return text[:300]


def quieten(*loggers: str) -> None:
    """Let clients that log every request, at INFO, log warnings only; a level that is set stays."""
    for name in loggers:
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.WARNING)
