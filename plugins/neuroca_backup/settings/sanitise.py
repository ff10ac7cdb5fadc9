"""The section `sanitise` of `backup.yaml`: what is personal in a copy, and what becomes of it.

A rule names one place of one source: a table's column, a collection's field, or keys.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from neuroca_backup.settings.strict import Strict, disagreement
from neuroca_backup.settings.values import refused

Action = Literal["hash", "null", "fake", "drop"]
FakeKind = Literal["name", "email", "phone", "text"]

_PLACES = ("table", "collection", "keys")
_TABLE = re.compile(r"[^.]+\.[^.]+")
_Refusal = tuple[tuple[str, ...], Any, PydanticCustomError]


class RuleSettings(Strict):
    """What becomes of the values at one place of the copy.

    `table` is `schema.table`; `collection` is MongoDB's `database.collection`, or a collection of
    vectors; `keys` is a pattern of Redis, as in SCAN. `database` narrows tables and keys to one
    database. `field` is a dotted path: into a document, a column of JSON, a hash or a JSON text.

    `hash` puts a keyed digest in the place of a value, so that equal values stay equal; `fake` a
    made-up one of the `kind`; `null` nothing; `drop` takes the place itself away. A rule whose
    place is not in the copy is an error, unless it is `optional`.
    """

    table: str | None = Field(default=None, min_length=1)
    column: str | None = Field(default=None, min_length=1)
    collection: str | None = Field(default=None, min_length=1)
    keys: str | None = Field(default=None, min_length=1)
    database: str | None = Field(default=None, min_length=1)
    field: str | None = Field(default=None, min_length=1)
    action: Action
    kind: FakeKind | None = None
    optional: bool = Field(default=False, strict=True)

    @property
    def place(self) -> str:
        """What the rule is about, for messages and records."""
        words = (self.table or self.collection or self.keys, self.column, self.field)
        where = f"{self.database}:" if self.database else ""
        return where + " ".join(word for word in words if word)

    @property
    def path(self) -> tuple[str, ...]:
        """The parts of `field`, () without one."""
        return tuple(self.field.split(".")) if self.field else ()

    @model_validator(mode="before")
    @classmethod
    def _null_is_a_word(cls, given: Any) -> Any:
        # YAML reads `action: null` as nothing at all.
        if isinstance(given, Mapping) and "action" in given and given["action"] is None:
            return {**given, "action": "null"}
        return given

    @model_validator(mode="after")
    def _is_about_one_place(self) -> RuleSettings:
        found = self._refusals()
        if found:
            raise disagreement("sanitise", found)
        return self

    def _refusals(self) -> list[_Refusal]:
        given = [word for word in _PLACES if getattr(self, word) is not None]
        if len(given) != 1:
            problem = "names no place" if not given else f"names {' and '.join(given)} at once"
            return [((), given, _said(problem, f"Write one of {', '.join(_PLACES)}."))]
        found: list[_Refusal] = []
        if self.table is not None:
            found += self._of_table()
        elif self.column is not None:
            error = refused("is a word for a table", "Write `field`.")
            found.append((("column",), self.column, error))
        if self.collection is not None and self.database is not None:
            error = refused("is a word for tables and keys", "Write `collection: database.name`.")
            found.append((("database",), self.database, error))
        if self.collection is not None and self.field is None and self.action != "drop":
            error = _said("is missing", "Name what is personal in a document.")
            found.append((("field",), None, error))
        if not all(self.path) if self.field else False:
            error = refused("has an empty part", "Write names with one dot between them.")
            found.append((("field",), self.field, error))
        if (self.action == "fake") != (self.kind is not None):
            error = _said(
                "`kind` goes with `action: fake` alone, which needs it",
                "Write one of name, email, phone, text, or remove it.",
            )
            found.append((("kind",), self.kind, error))
        return found

    def _of_table(self) -> list[_Refusal]:
        found: list[_Refusal] = []
        if _TABLE.fullmatch(str(self.table)) is None:
            error = refused("is not a table with its schema", "Write it like memory.users.")
            found.append((("table",), self.table, error))
        if self.column is None and (self.field is not None or self.action != "drop"):
            error = _said("is missing", "Name the column; `drop` alone can empty a whole table.")
            found.append((("column",), None, error))
        return found


def _said(problem: str, remedy: str) -> PydanticCustomError:
    """Return the error of something that is not there, so that no value can be shown."""
    return PydanticCustomError(
        "absent", "{problem}; {remedy}", {"problem": problem, "remedy": remedy}
    )
