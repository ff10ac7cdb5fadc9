"""Questions asked of a Redis server: is it ready, and can its keys be read?"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from neuroca_backup import redis_session as session
from neuroca_backup.engines import Answer
from neuroca_backup.engines.redis_rdb.parts import parts
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.redis_questions import ready

_KEYS = 100  # read of every database


def examine(
    endpoint: Endpoint, facts: Mapping[str, Any], *, only: Sequence[str] = ()
) -> list[Answer]:
    """Ask what the server is, then read random keys of every database that `facts` name.

    `only` may name databases and patterns: the databases are then those that it names.
    """
    chosen = {one.number for one in parts(only, facts).chosen}
    databases = {n: known for n, known in facts["databases"].items() if int(n) in chosen}
    return [ready(endpoint), *_read(endpoint, databases, whole=not only)]


def _read(
    endpoint: Endpoint, databases: Mapping[str, Mapping[str, Any]], *, whole: bool
) -> Iterator[Answer]:
    for number, known in databases.items():
        begun = time.monotonic()
        unread = 0
        with session.connect(endpoint, database=int(number)) as client:
            keys = int(session.call(client, "DBSIZE"))
            for _ in range(min(_KEYS, keys)):
                key = session.call(client, "RANDOMKEY")
                # None of both: it has expired since.
                if key is not None and session.call(client, "DUMP", key) is None:
                    unread += session.call(client, "EXISTS", key)
        problems = [f"{unread} keys could not be read"] if unread else []
        if whole and not keys and known["keys"] > known["expiring"]:
            problems.append("it holds no key")
        yield Answer(f"database {number}: keys can be read", _since(begun), tuple(problems))


def _since(begun: float) -> float:
    return round(time.monotonic() - begun, 4)
