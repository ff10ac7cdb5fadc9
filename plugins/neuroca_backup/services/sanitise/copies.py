"""What sanitising needs of a restored copy: one interface, and one module a kind of server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Protocol

from neuroca_backup.errors import ConfigurationError
from neuroca_backup.model.endpoint import FILES, Endpoint
from neuroca_backup.services.sanitise.evidence import Evidence
from neuroca_backup.services.sanitise.masking import Masker
from neuroca_backup.settings import RuleSettings


@dataclass(frozen=True, slots=True)
class Change:
    """What a rule did: its place, its action, and to how many rows, documents, keys or values."""

    place: str
    action: str
    count: int


class Copy(Protocol):
    """A restored copy that is open. Its methods are called in this order; memory stays flat."""

    def check(self, rules: Sequence[RuleSettings]) -> Sequence[RuleSettings]:
        """Return the rules that have a place in the copy; nothing is changed.

        Raises:
            NotFoundError: A place is not in the copy, and its rule is not optional.
            PermanentError: An action cannot be done there; says what could be.
        """
        ...

    def capture(self, rules: Sequence[RuleSettings], evidence: Evidence) -> None:
        """Add values that stand at the places of `rules` to `evidence`."""
        ...

    def apply(self, rules: Sequence[RuleSettings], masker: Masker) -> Sequence[Change]:
        """Do what the rules say, so that nothing of before can be read through the server."""
        ...

    def pieces(self, *, most: int | None = None) -> Iterator[bytes]:
        """Yield the whole content in its readable form: rows, documents, keys with their values.

        With `most` at most so many of each table, collection or database.
        """
        ...


def opened(endpoint: Endpoint, facts: Mapping[str, Any]) -> AbstractContextManager[Copy]:
    """Open the copy at `endpoint` whose dump has these `facts`.

    Raises:
        ConfigurationError: There is no way to look into a copy of this kind.
    """
    # ruff: noqa: PLC0415 - each client takes its time to import
    if endpoint.kind == "postgres":
        from neuroca_backup.postgres_session import ALLOWED_EXTRA
        from neuroca_backup.services.sanitise.tables import opened as tables

        # An engine's endpoint may have words of its own, such as a key or a directory.
        extra = {word: said for word, said in endpoint.extra.items() if word in ALLOWED_EXTRA}
        endpoint = replace(endpoint, extra=extra)
        return tables(endpoint, tuple(facts.get("databases") or (endpoint.database,)))
    if endpoint.kind == "mongo":
        from neuroca_backup.services.sanitise.documents import opened as documents

        return documents(endpoint, tuple(facts["collections"]))
    if endpoint.kind == "redis":
        from neuroca_backup.services.sanitise.keys import opened as keys

        return keys(endpoint)
    if endpoint.kind == FILES:
        from neuroca_backup.services.sanitise.files import opened as files

        return files(endpoint)
    if endpoint.kind in VECTOR_STORES:
        from neuroca_backup.services.sanitise.vectors import opened as vectors

        return vectors(endpoint, facts)
    raise ConfigurationError(
        f"A copy on a server of type {endpoint.kind!r} cannot be sanitised",
        remedy="Use a server of one of the types that there are engines for.",
        value=endpoint.kind,
    )


VECTOR_STORES = ("milvus", "pinecone", "qdrant")
# The word with which a rule for each kind of copy begins; files have none.
WORDS: Mapping[str, str] = {
    "postgres": "table",
    "mongo": "collection",
    "redis": "keys",
    **dict.fromkeys(VECTOR_STORES, "collection"),
}
