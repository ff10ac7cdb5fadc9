"""Questions asked of a tier in a vector store: does every collection of it answer a search?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from neuroca_backup.engines import Answer
from neuroca_backup.engines.semantic_memory import store
from neuroca_backup.memory import selection
from neuroca_backup.model.endpoint import Endpoint


def examine(
    endpoint: Endpoint, facts: Mapping[str, Any], *, only: Sequence[str] = ()
) -> list[Answer]:
    """Search every collection that `facts` name, or that `only` is about.

    Where single items were restored, which were compared row by row, a collection may lack them
    all: one that is not there was not asked.
    """
    found = selection.parse(only, tier=facts["tier"], places=("collection",))
    engine, plain = store.of(endpoint), store.plain(endpoint)
    if found.whole:
        return [Answer(*asked) for asked in engine.examined(plain, facts, ())]
    collections = {name: {**one, "count": 0} for name, one in facts["collections"].items()}
    with engine.connect(plain) as database:
        there = {name for at in database.collections() for name in (at.label, at.collection)}
    present = {
        name: one
        for name, one in collections.items()
        if name in there or name.rpartition(".")[2] in there
    }
    words = found.place("collection")
    asked = engine.examined(plain, {**facts, "collections": present}, words) if present else ()
    absent = [
        Answer(f"{name}: a search answers", unasked="there is no such collection in this copy")
        for name in collections
        if name not in present
    ]
    return [*(Answer(*one) for one in asked), *absent]
