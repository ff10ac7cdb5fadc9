"""Which collections and documents of a backup are restored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from neuroca_backup.engines import Restorable
from neuroca_backup.engines.episodic_memory import members
from neuroca_backup.engines.episodic_memory.definitions import VIEW, Definition
from neuroca_backup.errors import ConfigurationError
from neuroca_backup.memory import selection, tiers
from neuroca_backup.memory.selection import Selection

_COLLECTION = "collection"


def parsed(only: Sequence[str], facts: Mapping[str, Any]) -> Selection:
    """Return what the words `only` mean; raises `ConfigurationError` where they mean nothing."""
    return selection.parse(only, tier=facts["tier"], places=(_COLLECTION,))


def chosen(backup: Restorable) -> tuple[Selection, dict[str, Definition]]:
    """Return what the words of a restore mean, and the collections that they may be about.

    Views are a part of a whole tier only.

    Raises:
        ConfigurationError: They mean nothing here, or a moment was asked for.
    """
    manifest, facts = backup.last, backup.last.dump.facts
    tiers.require_form(facts, kind=manifest.engine)
    if backup.until is not None:
        raise ConfigurationError(
            "An export of episodic memory has one moment, it cannot be restored to another",
            remedy="Choose a backup by its id or by a time before which it was taken; the engine "
            "mongodb restores to any moment.",
            value=backup.until.isoformat(),
        )
    found = parsed(backup.only, facts)
    known = members.known(manifest)
    if found.whole:
        return found, known
    stored = {name: one for name, one in known.items() if one.kind != VIEW}
    wanted = found.place(_COLLECTION)
    for value in wanted:
        if not any(value in (one.namespace, one.name) for one in stored.values()):
            raise ConfigurationError(
                f"{_COLLECTION}={value}: {manifest.backup_id} has none such",
                remedy=f"It holds {', '.join(stored) or 'none'}.",
                value=value,
            )
    return found, {
        name: one
        for name, one in stored.items()
        if not wanted or one.namespace in wanted or one.name in wanted
    }


def chosen_documents(
    backup: Restorable, found: Selection, namespace: str
) -> Iterator[tuple[bytes, Any]]:
    """Yield the BSON and the `_id` of every chosen document of a fetched collection."""
    fields = tiers.Fields.model_validate(backup.last.dump.facts["fields"])
    with members.in_folder(backup.folders[-1], namespace) as documents:
        for raw, document in documents:
            if found.takes(document, name=str(document["_id"]), fields=fields):
                yield raw, document["_id"]
