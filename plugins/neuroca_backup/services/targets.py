"""Where a restore may go: never by accident to a server that is backed up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from neuroca_backup import engines
from neuroca_backup.errors import ConfigurationError, TargetRefusedError
from neuroca_backup.model.endpoint import FILES, Connections, Endpoint
from neuroca_backup.settings import Settings, SourceSettings


def of_files(engine: str) -> bool:
    """Return whether sources of `engine` are files of this machine, which need no connection."""
    return engines.named(engine).sandbox == engines.DIRECTORY


def require_way(name: str, source: SourceSettings) -> None:
    """Raise `ConfigurationError` unless `source` says how to reach it, and nothing beyond that."""
    files = of_files(source.engine)
    if files == (source.connection is None):
        return
    raise ConfigurationError(
        f"The source {name} has "
        + (
            f"the connection {source.connection}, and {source.engine} reads files of this machine"
            if files
            else f"no connection, and {source.engine} reads a server"
        ),
        remedy="Remove `connection`."
        if files
        else "Write `connection`: the id of an Airflow connection to the server.",
        path="connection",
        value=source.connection,
    )


def own(name: str, source: SourceSettings, *, connections: Connections) -> Endpoint:
    """Return where the source `name` itself is: its server, or this machine.

    Raises:
        ConfigurationError: Its connection is missing, or its engine has no use for one.
    """
    require_way(name, source)
    if source.connection is None:
        return Endpoint.this_machine()
    return connections.endpoint(source.connection)


def directory(path: Path, engine: str) -> Endpoint:
    """Return the directory `path` as the target of a restore by `engine`.

    Raises:
        ConfigurationError: The engine restores to servers, or the path is not absolute.
        TargetRefusedError: It is the root directory, where a restore would be in place.
    """
    if not of_files(engine):
        raise ConfigurationError(
            f"The engine {engine} restores to a server, not to the directory {path}",
            remedy="Name the server by its connection, or restore to a sandbox.",
            value=str(path),
        )
    if not path.is_absolute() or ".." in path.parts:
        raise ConfigurationError(
            f"The target directory {str(path)!r} is not an absolute path",
            remedy="Write it from the root on, without `..`, such as /restore/configuration.",
            value=str(path),
        )
    if path.parent == path:
        raise TargetRefusedError(
            "The target directory is /, where every file would go to its original place",
            remedy="Name another directory, or restore in place with its confirmation.",
            target=str(path),
        )
    return Endpoint.this_machine(path)


def require_server(engine: str, *, connection: str) -> None:
    """Raise `ConfigurationError` where `engine` cannot restore to the server of `connection`."""
    if of_files(engine):
        raise ConfigurationError(
            f"The engine {engine} restores files of this machine, not to the server of "
            f"{connection}",
            remedy="Name a directory (--target-directory), or restore to a sandbox.",
            value=connection,
        )


def sandbox_kind(engine: str) -> str:
    """Return the kind of throwaway server that takes backups of `engine`."""
    kind: str = engines.named(engine).sandbox
    if not kind:
        raise ConfigurationError(
            f"There is no sandbox for the engine {engine!r}",
            remedy="Restore to a server of your own, named by its connection.",
            engine=engine,
        )
    return kind


def with_default_port(endpoint: Endpoint, engine: str) -> Endpoint:
    """Return `endpoint` with the engine's port where the connection leaves it out.

    An engine that works on several kinds of servers has none of its own, but each kind's.
    """
    if endpoint.port is not None or endpoint.kind == FILES:
        return endpoint
    port = engines.named(engine).default_port or engines.named(endpoint.kind).default_port
    return replace(endpoint, port=port)


def refuse_production(
    endpoint: Endpoint, *, settings: Settings, connections: Connections
) -> Sequence[str]:
    """Return a note on every source whose server could not be compared with `endpoint`.

    A connection that is lost with its server must not keep it from being restored elsewhere; the
    engine still refuses a target that holds data.

    Raises:
        TargetRefusedError: `endpoint` is the server of a configured source.
    """
    if endpoint.kind == FILES or (not endpoint.host and "data_directory" in endpoint.extra):
        return []  # a directory of this machine, of which the engine sees whether it is in use
    notes = []
    for name, source in settings.sources.items():
        if source.connection is None:
            continue
        try:
            production = connections.endpoint(source.connection)
        except ConfigurationError:
            notes.append(
                f"The source {name} has no connection {source.connection} here, so nobody could "
                "see whether the target is its server."
            )
            continue
        if endpoint.same_server(with_default_port(production, source.engine)):
            raise TargetRefusedError(
                f"The target {endpoint.label} is the server of the source {name}",
                remedy="Restore into a sandbox or another server, or in place with its "
                "confirmation.",
                target=endpoint.label,
            )
    return notes
