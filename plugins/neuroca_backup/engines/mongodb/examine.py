"""Questions asked of a MongoDB server: does every index answer, and how quickly?

A question of the user's own is a JSON file: `database`, `collection` and an aggregation `pipeline`
of which every document is a problem.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from bson import json_util
from pymongo import errors as driver

from neuroca_backup import mongodb_session as session
from neuroca_backup.engines import Answer, Question
from neuroca_backup.engines.mongodb import catalog, layout
from neuroca_backup.engines.mongodb.catalog import VIEW
from neuroca_backup.mongodb_questions import MILLISECONDS, every_index, words_of

if TYPE_CHECKING:
    from neuroca_backup.model.endpoint import Endpoint
    from neuroca_backup.mongodb_session import Client

_TOLD = 5  # problems of one question
_WORDS = {"database", "collection", "pipeline"}


def examine(
    endpoint: Endpoint, facts: Mapping[str, Any], *, only: Sequence[str] = ()
) -> list[Answer]:
    """Read through every index of what `facts` name, or of the parts `only`."""
    chosen = {
        name: one
        for name, one in facts["collections"].items()
        if not name.startswith("admin.") and _within(name, only)
    }
    with session.connect(endpoint) as client:
        return list(_indexes(client, chosen))


def ask(
    endpoint: Endpoint, questions: Sequence[Question], *, only: Sequence[str] = ()
) -> list[Answer]:
    """Ask `questions`; those of collections that are no part of `only` are not asked."""
    with session.connect(endpoint) as client:
        return [_ask(client, one, only) for one in questions]


def _within(namespace: str, only: Sequence[str]) -> bool:
    return not only or namespace in only or layout.split(namespace)[0] in only


def _indexes(client: Client, chosen: Mapping[str, Mapping[str, Any]]) -> Iterator[Answer]:
    for namespace, facts in chosen.items():
        database, name = layout.split(namespace)
        listed = partial(catalog.all_indexes, client[database], name)
        yield every_index(client, namespace, (lambda: ()) if facts["type"] == VIEW else listed)


def _ask(client: Client, one: Question, only: Sequence[str]) -> Answer:
    begun = time.monotonic()
    try:
        asked = json_util.loads(one.text)
    except ValueError as error:
        return Answer(one.name, problems=(f"it is not JSON: {error}",))
    if not isinstance(asked, dict) or set(asked) != _WORDS:
        words = ", ".join(sorted(_WORDS))
        return Answer(one.name, problems=(f"it does not have exactly the words {words}",))
    namespace = f"{asked['database']}.{asked['collection']}"
    if not _within(namespace, only):
        return Answer(one.name, unasked=f"{namespace} is not in this copy")
    try:
        with client[asked["database"]][asked["collection"]].aggregate(
            asked["pipeline"], maxTimeMS=MILLISECONDS
        ) as cursor:
            rows = [row for row, _ in zip(cursor, range(_TOLD + 1), strict=False)]
    except driver.PyMongoError as error:
        return Answer(one.name, _since(begun), (f"it could not be answered: {words_of(error)}",))
    # By its `_id` alone: what else it holds does not belong into a log.
    problems = [f"the document {row.get('_id', 'without _id')}" for row in rows[:_TOLD]]
    more = ["and more of the kind"] if len(rows) > _TOLD else []
    return Answer(one.name, _since(begun), (*problems, *more))


def _since(begun: float) -> float:
    return round(time.monotonic() - begun, 4)
