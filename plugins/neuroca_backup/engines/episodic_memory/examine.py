"""Questions asked of a tier in MongoDB: does every collection of it answer by every index?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from neuroca_backup import mongodb_session as session
from neuroca_backup.engines import Answer
from neuroca_backup.engines.episodic_memory import definitions
from neuroca_backup.engines.episodic_memory.selecting import parsed
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.mongodb_questions import every_index


def examine(
    endpoint: Endpoint, facts: Mapping[str, Any], *, only: Sequence[str] = ()
) -> list[Answer]:
    """Read through every index of the collections that `facts` name, or that `only` is about."""
    wanted = parsed(only, facts).place("collection")
    with session.connect(endpoint) as client:
        return [
            every_index(client, name, partial(_indexes, client, name))
            for name in facts["collections"]
            if not wanted or name in wanted or name.partition(".")[2] in wanted
        ]


def _indexes(client: session.Client, namespace: str) -> list[Mapping[str, Any]]:
    database, _, name = namespace.partition(".")
    there = definitions.one(client, database, name)
    if there is None or there.kind == definitions.VIEW:
        return []  # a view has none of its own; its first document was asked for
    return list(client[database][name].list_indexes())
