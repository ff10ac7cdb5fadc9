"""Items of NCA's memory tiers for tests: sessions, users and times that are easily foretold."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from pymongo import monitoring

from neuroca_backup.engines import RestoreTarget
from neuroca_backup.engines.episodic_memory import ENGINE as EPISODIC
from neuroca_backup.engines.working_memory import ENGINE, reading, writing
from support.redis_keys import client_of

if TYPE_CHECKING:
    from neuroca_backup.model.endpoint import Endpoint
    from support.dumping import Dumped

START = datetime(2026, 11, 1, tzinfo=UTC)
# 1 January 2099 in Unix seconds: no key expires during a test.
LATER = 4_070_908_800


def made_at(number: int) -> datetime:
    """Return when item `number` was made: one an hour."""
    return START + timedelta(hours=number)


def add_items(endpoint: Endpoint, count: int, *, first: int = 0, database: int = 0) -> None:
    """Add items to short-term memory as NCA keeps them: a hash, its metadata, two indexes.

    Item n is of session s0 to s9 and of user 0 to 3, by turns.
    """
    with client_of(endpoint, database) as client:
        sending = client.pipeline(transaction=False)
        for n in range(first, first + count):
            words = {"id": f"i{n}", "content": f"memory {n}", "created_at": made_at(n).isoformat()}
            sending.hset(f"memory:stm:i{n}", mapping=words)
            sending.expireat(f"memory:stm:i{n}", LATER + n)
            metadata = {"session_id": f"s{n % 10}", "user_id": n % 4}
            sending.set(f"memory:stm:metadata:i{n}", json.dumps(metadata))
            sending.sadd(f"memory:stm:index:status:{'active' if n % 2 else 'archived'}", f"i{n}")
            sending.zadd("memory:stm:index:recent", {f"i{n}": n / 3})
        sending.execute()


def items_of(endpoint: Endpoint, database: int = 0) -> set[str]:
    """Return the ids of all items."""
    with client_of(endpoint, database) as client:
        keys: Any = client.keys("memory:stm:i[0-9]*")
        return {key.decode().rpartition(":")[2] for key in keys}


def die_in_working(step: str, dumped: Dumped, endpoint: Endpoint, writes: int) -> None:
    """For a child process: end as the out-of-memory killer would, after some requests."""
    left = iter(range(writes))
    original = writing.Writer.flush
    scan = reading.scan

    def flushed(self: Any) -> None:
        original(self)
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)

    def scanned(*arguments: Any) -> Iterator[list[bytes]]:
        for keys in scan(*arguments):
            yield keys
            if next(left, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)

    if step == "load":
        writing.Writer.flush = flushed  # type: ignore[method-assign]
    else:
        reading.scan = scanned
    getattr(ENGINE, step)(dumped.restorable(), RestoreTarget(endpoint, replace=True))


def die_in_episodic(step: str, dumped: Dumped, endpoint: Endpoint, commands: int) -> None:
    """For a child process: end as the out-of-memory killer would, before some command."""
    left = iter(range(commands))

    class Deadly(monitoring.CommandListener):
        def started(self, event: monitoring.CommandStartedEvent) -> None:
            counted = {"load": "insert", "publish": "renameCollection"}[step]
            if event.command_name == counted and next(left, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)

        def succeeded(self, event: monitoring.CommandSucceededEvent) -> None: ...

        def failed(self, event: monitoring.CommandFailedEvent) -> None: ...

    monitoring.register(Deadly())
    getattr(EPISODIC, step)(dumped.restorable(), RestoreTarget(endpoint, replace=True))
