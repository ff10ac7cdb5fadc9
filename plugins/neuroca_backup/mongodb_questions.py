"""A question asked of a MongoDB server: does a collection answer, and through every index?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from pymongo import errors as driver

from neuroca_backup.engines import Answer

if TYPE_CHECKING:
    from neuroca_backup.mongodb_session import Client

MILLISECONDS = 60_000  # of any question
# These answer only to conditions of their own kind.
_SPECIAL = {"text", "2d", "2dsphere", "2dsphere_bucket", "hashed", "columnstore"}


def every_index(
    client: Client,
    namespace: str,
    indexes: Callable[[], Iterable[Mapping[str, Any]]],
) -> Answer:
    """Read the first document of `namespace` (`database.collection`), and through its `indexes`.

    `indexes` is called only where the collection is there.
    """
    begun = time.monotonic()
    question = f"{namespace}: every index answers"
    database, _, name = namespace.partition(".")
    collection = client[database][name]
    if name not in client[database].list_collection_names(filter={"name": name}):
        # Whether it should be there was compared; at the moment restored to it may not.
        return Answer(question, unasked="there is no such collection in this copy")
    problems = []
    try:
        collection.find_one(max_time_ms=MILLISECONDS)
        for index in indexes():
            if index.get("hidden") or _SPECIAL & set(map(str, index["key"].values())):
                continue
            with collection.find({}, {"_id": 1}, limit=1, max_time_ms=MILLISECONDS) as found:
                # A sparse or partial index does not have every document, but it must answer.
                list(found.hint(index["name"]))
    except driver.PyMongoError as error:
        problems.append(f"it does not answer: {words_of(error)}")
    return Answer(question, round(time.monotonic() - begun, 4), tuple(problems))


def words_of(error: driver.PyMongoError) -> str:
    """Return what of a server's error may be told, without its whole answer."""
    return str(error).split(", full error")[0][:200]
