"""Where a restore may go: never by accident to a server that is backed up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from neuroca_backup import engines
from neuroca_backup.errors import ConfigurationError, TargetRefusedError
from neuroca_backup.model.endpoint import Connections, Endpoint
from neuroca_backup.settings import Settings


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
    if endpoint.port is not None:
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
    if not endpoint.host and "data_directory" in endpoint.extra:
        return []  # a directory of this machine, of which the engine sees whether it is in use
    notes = []
    for name, source in settings.sources.items():
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
