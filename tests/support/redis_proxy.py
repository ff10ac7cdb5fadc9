"""A proxy in front of Redis that does to a snapshot what networks, disks and operators do."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from neuroca_backup.model.endpoint import Endpoint

_CHUNK = 65_536


@dataclass
class Faults:
    """What happens to the answer to SYNC, and where connections go."""

    backend: Endpoint
    cut_after: int | None = None
    reply: bytes | None = None
    silent: bool = False
    change: Callable[[bytes], bytes] = lambda data: data
    after_sync: Endpoint | None = None
    seen: list[bytes] = field(default_factory=list)


@contextmanager
def proxy(backend: Endpoint) -> Iterator[tuple[Endpoint, Faults]]:
    """Give an endpoint that leads to `backend`, and what may be done to it."""
    faults = Faults(backend)
    with socket.create_server(("127.0.0.1", 0)) as server:
        ended = threading.Event()
        server.settimeout(0.1)

        def serve() -> None:
            while not ended.is_set():
                with contextlib.suppress(OSError):
                    client, _ = server.accept()
                    threading.Thread(target=_pass, args=(client, faults), daemon=True).start()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield replace(backend, port=server.getsockname()[1]), faults
        finally:
            ended.set()
            thread.join()


def _pass(client: socket.socket, faults: Faults) -> None:
    there = faults.backend
    syncing = threading.Event()
    with client, socket.create_connection((there.host, there.port or 6379)) as server:

        def forward() -> None:
            with contextlib.suppress(OSError):
                while data := client.recv(_CHUNK):
                    faults.seen.append(data)
                    if data.upper().startswith(b"SYNC"):
                        syncing.set()
                        if faults.after_sync is not None:
                            faults.backend = faults.after_sync
                        if faults.reply is not None:
                            client.sendall(faults.reply)
                            client.shutdown(socket.SHUT_RDWR)
                            return
                        if faults.silent:
                            continue
                    server.sendall(data)
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)

        thread = threading.Thread(target=forward, daemon=True)
        thread.start()
        _answer(client, server, faults, syncing)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def _answer(
    client: socket.socket, server: socket.socket, faults: Faults, syncing: threading.Event
) -> None:
    sent = 0
    with contextlib.suppress(OSError):
        while data := server.recv(_CHUNK):
            if syncing.is_set():
                data = faults.change(data)
                if faults.cut_after is not None:
                    data = data[: max(0, faults.cut_after - sent)]
                    if not data:
                        return
                sent += len(data)
            client.sendall(data)
