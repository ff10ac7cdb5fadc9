"""For a child process: one stage of a backup, killed with SIGKILL when it reaches a named point."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from neuroca_backup.errors import BackupError
from neuroca_backup.spool import Spool
from neuroca_backup.stores.local import LocalStore
from support.wiring import wire


def die(*_: Any, **__: Any) -> None:
    """End this process as the out-of-memory killer would."""
    os.kill(os.getpid(), signal.SIGKILL)


def around(owner: Any, name: str, *, before: bool, when: Callable[..., bool]) -> None:
    """Have `owner.name` kill this process before or after the first call that `when` fits."""
    original = getattr(owner, name)

    def wrapped(*arguments: Any, **words: Any) -> Any:
        if before and when(*arguments):
            die()
        result = original(*arguments, **words)
        if not before and when(*arguments):
            die()
        return result

    setattr(owner, name, wrapped)


def arm(point: str) -> None:
    """Set the trap."""

    def ends(word: str) -> Callable[..., bool]:
        return lambda *arguments: str(arguments[1]).endswith(word)

    traps: dict[str, tuple[Any, str, bool, Callable[..., bool]]] = {
        "before the folder is complete": (Spool, "complete", True, lambda *_: True),
        "after the folder is complete": (Spool, "complete", False, lambda *_: True),
        "before the source is removed": (Spool, "remove", True, lambda *_: True),
        "after the source is removed": (Spool, "remove", False, lambda *_: True),
        "before a member is stored": (LocalStore, "_place", True, lambda *_: True),
        "after a member is stored": (LocalStore, "_place", False, lambda *_: True),
        "before the keys": (LocalStore, "put", True, ends("keys.json")),
        "before the manifest": (LocalStore, "put", True, ends("manifest.json")),
        "after the manifest": (LocalStore, "put", False, ends("manifest.json")),
        "before the spool is cleared": (Spool, "clear", True, lambda *_: True),
    }
    owner, name, before, when = traps[point]
    around(owner, name, before=before, when=when)


def run(task: dict[str, Any], answers: Connection) -> None:
    """Wire, arm, run the stage, and answer with "" or the error."""
    runtime = wire(
        task["places"],
        postgres=task["postgres"],
        spool=task["spool"],
        mode=task["mode"],
        options=task["options"],
    )
    if task["point"]:
        arm(task["point"])
    stage, backups = task["stage"], runtime.backups
    try:
        if stage == "run":
            backups.run(task["ref"], mode=task["mode"])
        elif stage in {"dump", "stream", "replicate"}:
            getattr(backups, stage)(task["ref"])
        else:
            getattr(backups, stage)(task["ticket"])
    except BackupError as error:
        answers.send(str(error))
    else:
        answers.send("")
