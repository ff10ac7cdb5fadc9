"""Publishing as a whole: the target becomes a replica of the sidecar, then its own master again.

What must outlive a kill -9 is kept in the target itself: while it copies, its `masterauth` is the
sidecar's password together with the value that it had. A later run, of whatever process, reads
there that it was us, and what to put back.
"""

from __future__ import annotations

import base64
import json
import secrets
import time
from typing import TYPE_CHECKING, Any

from neuroca_backup import redis_session as session
from neuroca_backup.errors import (
    PermanentError,
    TargetRefusedError,
    TransientError,
    UnreachableError,
)
from neuroca_backup.model.endpoint import Endpoint

if TYPE_CHECKING:
    import redis

_OURS = "neuroca-restore."
_AUTH_WORDS = ("masterauth", "masteruser")
_POLL_SECONDS = 0.1
_LINK_SECONDS = 120.0
# A slow network or disk takes at least so many bytes of memory in a second.
_SLOW_BYTES = 5_000_000


def interrupted(client: redis.Redis) -> bool:
    """Return whether an earlier restore of ours was cut off while the target copied."""
    return setting(client, "masterauth").startswith(_OURS)


def allowed(client: redis.Redis) -> bool:
    """Return whether the target lets us make it a replica; asks in a way that changes nothing."""
    try:
        if "masterauth" not in _words(client):
            return False
        info: Any = client.info("replication")
        if info.get("role") == "master":
            # To a master this says nothing new.
            session.call(client, "REPLICAOF", "NO", "ONE")
    except PermanentError:
        # No permission, or no such command: a managed service.
        return False
    return True


def publish(endpoint: Endpoint, sidecar: Endpoint, *, address: str, size: int) -> None:
    """Make `endpoint` hold what the sidecar holds, and be a master with its settings of before.

    `size` is the data's size in memory, from which the deadline follows. May be repeated from
    any point.

    Raises:
        UnreachableError: The target did not reach the sidecar, or was not done in time.
        PermanentError: Its append-only file, or its snapshot, could not be written.
    """
    seconds = _LINK_SECONDS + size / _SLOW_BYTES
    with session.connect(endpoint) as client, session.connect(sidecar) as source:
        settings = _settings(client)
        mark = _mark(settings)
        # The sidecar's user takes several passwords; this one carries the target's settings.
        session.call(source, "ACL", "SETUSER", "default", f">{mark}")
        if "masteruser" in settings:
            client.config_set("masteruser", "")
        client.config_set("masterauth", mark)
        session.call(client, "REPLICAOF", address, str(sidecar.port))
        _await_copy(endpoint, client, source, address=address, seconds=seconds)
        session.call(client, "REPLICAOF", "NO", "ONE")
        restore_settings(client)
    persist(endpoint, seconds=seconds)


def abandon(client: redis.Redis) -> None:
    """Undo what an interrupted `publish` has left, so that the target can be written to."""
    if interrupted(client):
        session.call(client, "REPLICAOF", "NO", "ONE")
        restore_settings(client)


def setting(client: redis.Redis, word: str) -> str:
    """Return one of the server's settings, "" where it shows none to us."""
    try:
        answer: Any = client.config_get(word)
    except PermanentError:
        return ""
    return next((_text(value or b"") for value in answer.values()), "")


def restore_settings(client: redis.Redis) -> None:
    """Put back what `publish` has changed in the target's settings, if it has."""
    if interrupted(client):
        for word, value in _settings(client).items():
            client.config_set(word, value)


def persist(endpoint: Endpoint, *, seconds: float) -> None:
    """Return once the target's own disk holds the data, if it keeps any.

    Raises:
        PermanentError: The server says that it could not write.
        UnreachableError: It was not done in time.
    """
    with session.connect(endpoint) as client:
        info: Any = client.info("persistence")
        if info.get("aof_enabled"):
            _await_idle(
                endpoint, client, ("aof_rewrite_in_progress", "aof_rewrite_scheduled"), seconds
            )
            info = client.info("persistence")
            if info.get("aof_last_bgrewrite_status") != "ok":
                # The rewrite after the copy failed; one more try tells whether it still would.
                client.bgrewriteaof()
                _await_idle(
                    endpoint, client, ("aof_rewrite_in_progress", "aof_rewrite_scheduled"), seconds
                )
                info = client.info("persistence")
            sound = ["aof_last_bgrewrite_status", "aof_last_write_status"]
        elif setting(client, "save"):
            _await_idle(endpoint, client, ("rdb_bgsave_in_progress",), seconds)
            client.bgsave()
            _await_idle(endpoint, client, ("rdb_bgsave_in_progress",), seconds)
            info = client.info("persistence")
            sound = ["rdb_last_bgsave_status"]
        else:
            return
    broken = [word for word in sound if info.get(word) != "ok"]
    if broken:
        raise PermanentError(
            f"Redis at {endpoint.label} holds the restored data in memory, but could not write it "
            f"to its disk ({', '.join(broken)})",
            remedy="Make room on its disk and read its log, then run this step again.",
            server=endpoint.label,
        )


def refuse_replica(endpoint: Endpoint, client: redis.Redis, role: str) -> None:
    """Raise `TargetRefusedError` where the target follows a master that is not a sidecar."""
    if role != "master" and not interrupted(client):
        raise TargetRefusedError(
            f"Redis at {endpoint.label} is a replica: its master would overwrite what is restored",
            remedy="Restore into its master, or make it one first (REPLICAOF NO ONE).",
            server=endpoint.label,
        )


def _await_copy(
    endpoint: Endpoint,
    client: redis.Redis,
    source: redis.Redis,
    *,
    address: str,
    seconds: float,
) -> None:
    deadline = time.monotonic() + seconds
    while True:
        theirs: Any = client.info("replication")
        ours: Any = source.info("replication")
        if theirs.get("role") != "slave" or theirs.get("master_host") != address:
            raise TransientError(
                f"Redis at {endpoint.label} was told to follow another server while it copied",
                remedy="Keep its sentinel or operator from it (pause the failover), then run this "
                "step again.",
                server=endpoint.label,
            )
        if (
            theirs.get("master_link_status") == "up"
            and not theirs.get("master_sync_in_progress")
            and int(theirs.get("slave_repl_offset", -1)) >= int(ours["master_repl_offset"])
        ):
            return
        if time.monotonic() > deadline:
            raise UnreachableError(
                f"Redis at {endpoint.label} did not copy everything from {address} within "
                f"{seconds:,.0f} s",
                remedy="Check that it reaches this machine there (`sidecar_host` in the "
                "connection's extra names another address), its disk and its log. Or set "
                "`restore_mode` to keys.",
                server=endpoint.label,
            )
        time.sleep(_POLL_SECONDS)


def _await_idle(
    endpoint: Endpoint, client: redis.Redis, words: tuple[str, ...], seconds: float
) -> None:
    deadline = time.monotonic() + seconds
    while True:
        info: Any = client.info("persistence")
        if not any(info.get(word) for word in words):
            return
        if time.monotonic() > deadline:
            raise UnreachableError(
                f"Redis at {endpoint.label} was still writing to its disk after {seconds:,.0f} s",
                remedy="Look at its disk, then run this step again.",
                server=endpoint.label,
            )
        time.sleep(_POLL_SECONDS)


def _words(client: redis.Redis) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in _AUTH_WORDS:
        answer: Any = client.config_get(word)
        found |= {_text(name): _text(value or b"") for name, value in answer.items()}
    return found


def _settings(client: redis.Redis) -> dict[str, str]:
    """Return the target's own settings, be they in place or carried by our mark."""
    found = _words(client)
    carried = found.get("masterauth", "")
    if not carried.startswith(_OURS):
        return found
    told: dict[str, str] = json.loads(base64.urlsafe_b64decode(carried.split(".")[2]))
    return told


def _mark(settings: dict[str, str]) -> str:
    carried = base64.urlsafe_b64encode(json.dumps(settings).encode()).decode()
    return f"{_OURS}{secrets.token_hex(16)}.{carried}"


def _text(value: bytes | str) -> str:
    return value.decode(errors="surrogateescape") if isinstance(value, bytes) else value
