"""`servers.json`: what runs below a sandbox's root, for every later process to read.

It holds passwords, so only its owner may read it, and it is replaced as a whole or not at all.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from neuroca_backup.errors import AccessDeniedError, ConfigurationError
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.sandbox.process import Process
from neuroca_backup.sandbox.server import Entry

FILE_NAME = "servers.json"
_VERSION = 1


class State:
    """The entries of one root by kind. Every change is on disk before the call returns."""

    def __init__(self, root: Path, *, entries: dict[str, Entry], owns_root: bool) -> None:
        self.root = root
        self.owns_root = owns_root
        self._entries = entries
        self._lock = threading.Lock()

    @classmethod
    def read(cls, root: Path) -> State:
        """Return what `root` holds; nothing there is an empty state.

        Raises:
            AccessDeniedError: The file belongs to another user.
            ConfigurationError: The file is not one that this module has written.
        """
        path = root / FILE_NAME
        try:
            document = json.loads(path.read_text())
            entries = {kind: _entry(kind, body) for kind, body in document["servers"].items()}
            return cls(root, entries=entries, owns_root=bool(document["owns_root"]))
        except (FileNotFoundError, NotADirectoryError):
            return cls(root, entries={}, owns_root=False)
        except PermissionError as error:
            raise AccessDeniedError(
                f"{path} may not be read by this user",
                remedy="Use the sandbox as the user that started it.",
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigurationError(
                f"{path} does not describe a sandbox",
                remedy="Choose another root, or remove the file if nothing of it runs any more.",
            ) from error

    @property
    def entries(self) -> dict[str, Entry]:
        """The entries by kind, a copy."""
        with self._lock:
            return dict(self._entries)

    def put(self, entry: Entry) -> None:
        """Add or replace one entry."""
        with self._lock:
            self._entries[entry.kind] = entry
            self._write()

    def remove(self, kind: str) -> None:
        """Remove one entry."""
        with self._lock:
            self._entries.pop(kind, None)
            self._write()

    def close(self) -> None:
        """Remove the file, and a root that was made for it, when no entry is left."""
        with self._lock:
            if self._entries:
                return
            (self.root / FILE_NAME).unlink(missing_ok=True)
            if self.owns_root and self.root.exists() and not any(self.root.iterdir()):
                self.root.rmdir()

    def _write(self) -> None:
        document = {
            "version": _VERSION,
            "owns_root": self.owns_root,
            "servers": {kind: _body(entry) for kind, entry in self._entries.items()},
        }
        fresh = self.root / f".{FILE_NAME}.{os.getpid()}"
        descriptor = os.open(
            fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, stat.S_IRUSR | stat.S_IWUSR
        )
        with os.fdopen(descriptor, "w") as file:
            json.dump(document, file, indent=2)
        fresh.replace(self.root / FILE_NAME)


@contextmanager
def locked(root: Path, *, create: bool) -> Iterator[bool]:
    """Keep other processes from starting or stopping servers below `root` meanwhile.

    The lock is on the directory itself, so it leaves no file; its holder's end, even by SIGKILL,
    frees it. Yields whether the root had to be made; without `create` a missing root is not
    locked. As root the directory lets other accounts through, but not look inside.
    """
    while True:
        made = False
        if create and not root.exists():
            root.mkdir(parents=True, exist_ok=True)
            root.chmod(0o711 if os.geteuid() == 0 else 0o700)
            made = True
        try:
            descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            if create:
                continue
            yield False
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _same(descriptor, root):
                yield made
                return
        finally:
            os.close(descriptor)


def _same(descriptor: int, root: Path) -> bool:
    """Return whether the locked directory is still the one at `root`, not one since removed."""
    try:
        return os.path.samestat(os.fstat(descriptor), root.stat())
    except FileNotFoundError:
        return False


def _body(entry: Entry) -> dict[str, Any]:
    body = dataclasses.asdict(entry)
    return {**body, "folder": str(entry.folder)}


def _entry(kind: str, body: dict[str, Any]) -> Entry:
    process, endpoint = body["process"], body["endpoint"]
    return Entry(
        kind=kind,
        folder=Path(body["folder"]),
        stop_signal=int(body["stop_signal"]),
        grace_seconds=float(body["grace_seconds"]),
        process=None if process is None else Process(**process),
        endpoint=None if endpoint is None else Endpoint(**endpoint),
    )
