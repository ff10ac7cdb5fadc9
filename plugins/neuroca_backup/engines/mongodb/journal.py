"""What a restore has staged on the target, noted on the target itself.

Steps of a restore may run in different processes, and any of them may be killed and repeated; the
note is kept where the data is, and is gone once everything is in place.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pymongo.write_concern import WriteConcern

from neuroca_backup.engines.mongodb import layout
from neuroca_backup.engines.mongodb.catalog import VIEW, Definition

if TYPE_CHECKING:
    from pymongo.collection import Collection

    from neuroca_backup.engines.mongodb.chain import Wanted
    from neuroca_backup.mongodb_session import Client

LOADED, FILLING, DONE = "loaded", "filling", "done"
_COMPLETE = "complete"


@dataclass(frozen=True, slots=True)
class Note:
    """One thing to be put in place, or, without a definition, to be put aside.

    `staged` is "" for a view; `kept` the name for what is replaced, "" where nothing is.
    """

    key: str
    database: str
    name: str
    staged: str
    state: str
    kept: str | None
    definition: Definition | None


class Journal:
    """The notes of one restore, called by its mark."""

    def __init__(self, client: Client, mark: str) -> None:
        self._mark = mark
        self._notes: Collection[dict[str, Any]] = client[layout.JOURNAL].get_collection(
            "staged", write_concern=WriteConcern(w="majority")
        )
        self._client = client

    @property
    def complete(self) -> bool:
        """Whether a load came to its end, and what it staged is not all in place yet."""
        return self._notes.find_one({"_id": f"{self._mark}/{_COMPLETE}"}) is not None

    def begin(self) -> None:
        """Forget everything, and drop whatever an earlier load has staged."""
        self._notes.delete_many({"mark": self._mark})
        prefix = f"restoring_{self._mark}_"
        for name in self._client.list_database_names():
            if layout.takes_database(name):
                database = self._client[name]
                for one in database.list_collections(filter={"name": {"$regex": f"^{prefix}"}}):
                    database.drop_collection(one["name"])

    def staged(self, wanted: Wanted) -> None:
        """Note that everything `wanted` is loaded."""
        for namespace, one in wanted.definitions.items():
            self._put(
                f"{self._mark}/{namespace}",
                database=one.database,
                name=one.name,
                staged="" if one.kind == VIEW else wanted.staging(one),
                facts=one.facts(),
            )
        self._notes.insert_one({"_id": f"{self._mark}/{_COMPLETE}", "mark": self._mark})

    def aside(self, database: str, name: str, kept: str) -> None:
        """Note that something which the backup does not have is to be put aside."""
        self._put(f"{self._mark}/aside/{database}.{name}", database=database, name=name, kept=kept)

    def notes(self) -> Iterator[Note]:
        """Yield all notes in a fixed order."""
        for one in list(self._notes.find({"mark": self._mark, "name": {"$exists": True}})):
            facts = one.get("facts")
            namespace = f"{one['database']}.{one['name']}"
            yield Note(
                key=one["_id"],
                database=one["database"],
                name=one["name"],
                staged=one.get("staged", ""),
                state=one["state"],
                kept=one.get("kept"),
                definition=None if facts is None else Definition.of(namespace, facts),
            )

    def set(self, note: Note, **changes: str) -> None:
        """Change a note."""
        self._notes.update_one({"_id": note.key}, {"$set": changes})

    def close(self) -> None:
        """Forget everything: all is in place."""
        self._notes.delete_many({"mark": self._mark})
        if self._notes.find_one() is None:
            self._client.drop_database(layout.JOURNAL)

    def _put(self, key: str, **values: Any) -> None:
        body = {"mark": self._mark, "state": LOADED, **values}
        self._notes.replace_one({"_id": key}, body, upsert=True)
