"""Restoring: a sidecar loads the backup and is compared; only then is the target touched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from neuroca_backup import redis_session as session
from neuroca_backup.engines import Difference, Restorable, RestoreTarget
from neuroca_backup.engines.redis_rdb import (
    compare as comparing,
)
from neuroca_backup.engines.redis_rdb import (
    keywise,
    placing,
    rdb,
    sidecar,
    takeover,
    tools,
)
from neuroca_backup.engines.redis_rdb.parts import Parts, parts
from neuroca_backup.errors import (
    ComparisonError,
    ConfigurationError,
    IncompatibleVersionError,
    TargetRefusedError,
    UnreachableError,
)
from neuroca_backup.model.endpoint import Endpoint

MODE_WORD = "restore_mode"
_REPLICA, _KEYS = "replica", "keys"
# Files in the folder of a restore that say how far it has come.
_LOADED, _COMPARED, _BEGUN, _PUBLISHED = "loaded", "compared", "begun", "published"


def preflight(backup: Restorable, target: RestoreTarget) -> list[str]:
    """Refuse what cannot work before anything is touched; see the protocol."""
    chosen = _parts(backup)
    facts = backup.last.dump.facts
    _require_loadable(facts, tools.version("redis-server"), "redis-server of this machine")
    sidecar.require_memory(facts["used_memory"])
    path = placing.wanted(target)
    if path is not None:
        if not chosen.whole:
            raise ConfigurationError(
                "A stopped server takes a whole backup, not a part of one",
                remedy="Start it, then restore the part.",
                value=list(backup.only),
            )
        placing.require_place(path, target)
        needs = rdb.SERVER_OF_VERSION.get(facts["rdb_version"], "?")
        return [
            f"{target.endpoint.label} does not answer: {path} will be put in place. It needs "
            f"Redis {needs} or newer.",
            *([f"The file that is there will be kept beside {path}"] if path.exists() else []),
        ]
    state = session.state(target.endpoint)
    where = f"the target {target.endpoint.label}"
    _require_loadable(facts, state.version, where)
    with session.connect(target.endpoint) as client:
        mode = _mode(backup, target, client)
        _require_copyable(tools.version("redis-server"), state.version, where)
        takeover.refuse_replica(target.endpoint, client, state.role)
        cut_off = takeover.interrupted(client)
        _require_room(backup, chosen, client, state, where)
    held = _held(target.endpoint, chosen, state)
    if held and not target.replace and not cut_off:
        raise TargetRefusedError(
            f"{target.endpoint.label} holds {held:,} keys where this would be restored",
            remedy="Restore into an empty server or a sandbox, or confirm an in-place restore.",
            server=target.endpoint.label,
            keys=held,
        )
    notes = [f"{held:,} keys of {target.endpoint.label} will be replaced"] if held else []
    if cut_off:
        notes.append("An earlier restore was cut off while this target copied; it is made again")
    if mode == _KEYS and chosen.whole:
        notes.append("Keys are restored one by one, not by replication")
    return notes


def load(backup: Restorable, target: RestoreTarget) -> list[str]:
    """Start a sidecar with the backup in it; a repeat starts another one."""
    _parts(backup)
    for name in (_LOADED, _COMPARED, _BEGUN, _PUBLISHED):
        (backup.work / name).unlink(missing_ok=True)
    sidecar.launch(backup, target)
    _note(backup, _LOADED)
    return []


def compare(backup: Restorable, target: RestoreTarget) -> list[Difference]:
    """Compare the sidecar with the manifest; once published, or never loaded here, the target."""
    path, chosen = sidecar.member(backup), _parts(backup)
    if (backup.work / _LOADED).exists() and not (backup.work / _PUBLISHED).exists():
        endpoint = _sidecar(backup)
        found = [
            *comparing.size_differences(backup, endpoint),
            *comparing.server_differences(
                backup, path, endpoint, parts((), backup.last.dump.facts)
            ),
        ]
        if not found:
            _note(backup, _COMPARED)
        return found
    place = placing.wanted(target)
    if place is not None:
        return comparing.file_differences(backup, path, place, chosen)
    return comparing.server_differences(backup, path, target.endpoint, chosen)


def publish(backup: Restorable, target: RestoreTarget) -> Sequence[str]:
    """Put the compared copy in its final place; a repeat changes nothing more."""
    if (backup.work / _PUBLISHED).exists():
        return []
    _require_compared(backup, target)
    path, chosen = sidecar.member(backup), _parts(backup)
    place = placing.wanted(target)
    if place is not None:
        placing.require_place(place, RestoreTarget(target.endpoint, replace=True))
        notes = placing.publish(backup, path, place)
    else:
        notes = []
        _into_server(backup, target, chosen)
    _note(backup, _PUBLISHED)
    return notes


def _into_server(backup: Restorable, target: RestoreTarget, chosen: Parts) -> None:
    endpoint, source = target.endpoint, _sidecar(backup)
    facts = backup.last.dump.facts
    state = session.state(endpoint)
    with session.connect(endpoint) as client:
        mode = _mode(backup, target, client)
        takeover.refuse_replica(endpoint, client, state.role)
        ours = (backup.work / _BEGUN).exists() or takeover.interrupted(client)
        if mode == _KEYS:
            takeover.abandon(client)
    held = 0 if target.replace or ours else _held(endpoint, chosen, state)
    if held:
        raise TargetRefusedError(
            f"{endpoint.label} got {held:,} keys since the check",
            remedy="Confirm an in-place restore, or restore elsewhere.",
            server=endpoint.label,
            keys=held,
        )
    _note(backup, _BEGUN)
    if mode == _REPLICA:
        takeover.publish(
            endpoint, source, address=sidecar.address(endpoint), size=facts["used_memory"]
        )
    else:
        keywise.publish(endpoint, source, chosen)


def _mode(backup: Restorable, target: RestoreTarget, client: Any) -> str:
    """Return how the target gets its data: as a replica where it can be one."""
    named = target.endpoint.extra.get(MODE_WORD)
    if named not in {None, "", _REPLICA, _KEYS}:
        raise ConfigurationError(
            f"{MODE_WORD} of the connection's extra is {named!r}",
            remedy=f"Write {_REPLICA} or {_KEYS}, or leave it out.",
            path=MODE_WORD,
            value=named,
        )
    if backup.only:
        return _KEYS
    if named:
        return str(named)
    # The sidecar speaks no TLS, and a server that demands it of clients does so of its master.
    secure = bool(target.endpoint.extra.get("ssl"))
    return _REPLICA if not secure and takeover.allowed(client) else _KEYS


def _held(endpoint: Endpoint, chosen: Parts, state: session.State) -> int:
    """Return how many keys the target has where the chosen ones go."""
    if chosen.whole:
        return sum(state.databases.values())
    held = 0
    for part in chosen.chosen:
        if part.pattern == b"*":
            held += state.databases.get(part.number, 0)
            continue
        with session.connect(endpoint, database=part.number) as client:
            held += sum(len(keys) for keys in comparing.scan(client, part.pattern))
    return held


def _require_loadable(facts: Mapping[str, Any], version: str, where: str) -> None:
    ours = tools.rdb_version(version)
    if ours < facts["rdb_version"]:
        needs = rdb.SERVER_OF_VERSION.get(facts["rdb_version"], "a newer one than we know")
        raise IncompatibleVersionError(
            f"The backup is an RDB of version {facts['rdb_version']}, written by Redis "
            f"{facts['redis_version']}; {where} is Redis {version} and reads up to {ours}",
            remedy=f"Restore with and into Redis {needs} or newer; NEUROCA_REDIS_BIN names the "
            "folder of this machine's tools.",
            source=facts["redis_version"],
            found=version,
        )


def _require_copyable(ours: str, theirs: str, where: str) -> None:
    """Raise unless the target reads what our sidecar writes, which is of the sidecar's version."""
    if tools.rdb_version(ours) > tools.rdb_version(theirs):
        raise IncompatibleVersionError(
            f"The redis-server of this machine is {ours}, newer than {where}, which is {theirs}: "
            "the target could not read what it sends",
            remedy=f"Install redis-server {theirs} here and name its folder in NEUROCA_REDIS_BIN.",
            source=ours,
            found=theirs,
        )


def _require_room(
    backup: Restorable, chosen: Parts, client: Any, state: session.State, where: str
) -> None:
    """Raise where the target has too few databases or too little memory for what is chosen."""
    highest = max((part.number for part in chosen.chosen), default=0)
    databases = takeover.setting(client, "databases")
    if databases.isdecimal() and int(databases) <= highest:
        raise TargetRefusedError(
            f"The backup has keys in database {highest}; {where} has databases 0 to "
            f"{int(databases) - 1}",
            remedy=f"Set `databases {highest + 1}` in its configuration and start it again.",
            databases=databases,
        )
    limit, needed = int(state.info.get("maxmemory", 0)), backup.last.dump.facts["used_memory"]
    if chosen.whole and 0 < limit < needed:
        raise TargetRefusedError(
            f"The backup took {needed / 1e6:,.0f} MB of memory; {where} may use "
            f"{limit / 1e6:,.0f} MB: it would evict keys, or refuse writes",
            remedy="Raise its maxmemory, or restore into a larger server.",
            needed=needed,
            maxmemory=limit,
        )


def _require_compared(backup: Restorable, target: RestoreTarget) -> None:
    if (backup.work / _COMPARED).exists():
        return
    loaded = (backup.work / _LOADED).exists()
    found = compare(backup, target) if loaded else []
    if found or not (backup.work / _COMPARED).exists():
        shown = "; ".join(map(str, found[:10])) or "nothing was loaded"
        raise ComparisonError(
            f"{backup.last.backup_id} is not published: {shown}",
            remedy="The target was not changed. Run the restore from its load step on, or "
            "restore another backup.",
            backup_id=backup.last.backup_id,
            differences=len(found),
        )


def _sidecar(backup: Restorable) -> Endpoint:
    found = sidecar.running(backup.work)
    if found is None:
        raise UnreachableError(
            f"The server that had loaded {backup.last.backup_id} has ended",
            remedy="Run the restore from its load step on; look for the out-of-memory killer.",
        )
    return found


def _parts(backup: Restorable) -> Parts:
    if backup.until is not None:
        raise ConfigurationError(
            "A backup of Redis has one moment, it cannot be restored to another",
            remedy="Choose a backup by its id or by a time before which it was taken.",
            value=backup.until.isoformat(),
        )
    return parts(backup.only, backup.last.dump.facts)


def _note(backup: Restorable, name: str) -> None:
    backup.work.mkdir(mode=0o700, parents=True, exist_ok=True)
    (backup.work / name).touch(mode=0o600)
