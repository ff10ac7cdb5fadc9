"""Finding what the person at the command line named, in the stores if backup.yaml has lost it."""

from __future__ import annotations

from collections.abc import Iterator

from neuroca_backup.errors import NotFoundError, StoreUnavailableError
from neuroca_backup.model.identity import BackupRef, Component
from neuroca_backup.runtime import Runtime
from neuroca_backup.services import past
from neuroca_backup.services.inventory import Inventory, Listed


def look_up(runtime: Runtime, backup_id: str) -> Listed:
    """Return what the stores say of a backup.

    Raises:
        ConfigurationError: This is not a backup id.
        NotFoundError: No store that answers has it; names those that do not answer.
        StoreUnavailableError: No store answers.
    """
    inventory = Inventory(runtime.stores)
    for component in _likely_first(runtime, backup_id):
        found = inventory.look(BackupRef(backup_id, component))
        if found.manifests or found.problems:
            return found
    silent = "; ".join(inventory.unreachable.values())
    if len(inventory.unreachable) == len(runtime.stores):
        raise StoreUnavailableError(
            f"No store answers: {silent}",
            remedy="Mend the network or the credentials of one of them.",
        )
    raise NotFoundError(
        f"There is no backup {backup_id} in {', '.join(runtime.stores)}"
        + (f"; not all of them answered: {silent}" if silent else ""),
        remedy=f"`neuroca-backup list` shows what there is. {past.REMEDY}",
        backup_id=backup_id,
    )


def component_of(runtime: Runtime, source: str, *, backup_id: str | None) -> Component:
    """Return the component under which the backups of `source` are stored.

    Raises:
        NotFoundError: Neither backup.yaml nor a store that answers knows the source.
    """
    if backup_id is not None:
        return look_up(runtime, backup_id).ref.component
    known_source = runtime.settings.source(source)
    if known_source is not None:
        return known_source.component
    inventory = Inventory(runtime.stores)
    held = list(inventory.sources())
    for component, name in held:
        if name == source:
            return component
    known = sorted({*runtime.settings.sources, *(name for _, name in held)})
    silent = "; ".join(inventory.unreachable.values())
    raise NotFoundError(
        f"There is no source {source!r} in backup.yaml or in the stores"
        + (f"; not all of them answered: {silent}" if silent else ""),
        remedy=f"Use one of: {', '.join(known)}.",
        value=source,
    )


def _likely_first(runtime: Runtime, backup_id: str) -> Iterator[Component]:
    source = BackupRef(backup_id, Component.DATABASE).source
    known = runtime.settings.source(source)
    if known is not None:
        yield known.component
    for component in Component:
        if known is None or component != known.component:
            yield component
