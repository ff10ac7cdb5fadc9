"""A question asked of a Redis server: is it ready to be used?"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from neuroca_backup import redis_session as session
from neuroca_backup.engines import Answer
from neuroca_backup.model.endpoint import Endpoint


def ready(endpoint: Endpoint) -> Answer:
    """Ask whether it has loaded, is the master, and could write to its disk the last time."""
    begun = time.monotonic()
    with session.connect(endpoint) as client:
        info = client.info()
    found: Mapping[str, Any] = info
    problems = []
    if found.get("loading"):
        problems.append("it is still loading")
    if found.get("role") != "master":
        problems.append(f"it is a {found.get('role')}, which takes no writes")
    if str(found.get("rdb_last_bgsave_status", "ok")) != "ok":
        problems.append("its last snapshot to disk failed")
    if found.get("aof_enabled") and str(found.get("aof_last_write_status", "ok")) != "ok":
        problems.append("its last write to the append-only file failed")
    seconds = round(time.monotonic() - begun, 4)
    return Answer("the server takes reads and writes", seconds, tuple(problems))
