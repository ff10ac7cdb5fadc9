"""Which keys of a backup are restored, and which indexes they are added to.

An item of NCA is several keys: `memory:stm:<id>`, `memory:stm:metadata:<id>`, and the id among the
members of index sets. What follows the last colon of a key is taken as its id, so that whatever of
them tells the session, all of them come back. Indexes list other items, too: they are never
replaced when single items are restored, the chosen ids are added to them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from neuroca_backup.engines import Restorable
from neuroca_backup.engines.working_memory import members
from neuroca_backup.engines.working_memory.items import HASH, KINDS, SET, STRING, ZSET, Piece
from neuroca_backup.errors import ConfigurationError
from neuroca_backup.memory import selection, tiers
from neuroca_backup.memory.seen import Seen
from neuroca_backup.memory.selection import Selection
from neuroca_backup.redis_patterns import matches

_KEYS, DATABASE, _TYPE = "keys", "database", "type"


def parsed(only: Sequence[str], facts: Mapping[str, Any]) -> Selection:
    """Return what the words `only` mean; raises `ConfigurationError` where they mean nothing."""
    return selection.parse(only, tier=facts["tier"], places=(_KEYS, DATABASE, _TYPE), expiring=True)


def chosen(backup: Restorable) -> Selection:
    """Return what the words of a restore mean.

    Raises:
        ConfigurationError: They mean nothing here, or a moment was asked for.
    """
    manifest, facts = backup.last, backup.last.dump.facts
    tiers.require_form(facts, kind=manifest.engine)
    if backup.until is not None:
        raise ConfigurationError(
            "An export of working memory has one moment, it cannot be restored to another",
            remedy="Choose a backup by its id or by a time before which it was taken.",
            value=backup.until.isoformat(),
        )
    found = parsed(backup.only, facts)
    for word, known in ((DATABASE, list(facts["databases"])), (_TYPE, list(KINDS))):
        for value in found.place(word):
            if value not in known:
                raise ConfigurationError(
                    f"{word}={value}: {manifest.backup_id} has none such",
                    remedy=f"It can be {', '.join(known) or 'nothing: the backup is empty'}.",
                    value=value,
                )
    return found


class Choosing:
    """Picks keys of a fetched backup; the ids that were found lie in a private file for the block.

    Usable within a `with` block, which reads all members once where single items are chosen.
    """

    def __init__(self, backup: Restorable) -> None:
        self.selection = chosen(backup)
        self._backup = backup
        facts = backup.last.dump.facts
        self._fields = tiers.Fields.model_validate(facts["fields"])
        self._indexes = [pattern.encode() for pattern in facts["indexes"]]
        self._patterns = [pattern.encode() for pattern in self.selection.place(_KEYS)]
        self._seen = Seen()

    def __enter__(self) -> Self:
        self._seen.__enter__()
        if self.selection.conditions:
            for number, found in members.in_folder(self._backup.folders[-1], self._backup.last):
                for piece in found:
                    self._gather(number, piece)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._seen.__exit__(kind, error, trace)

    def databases(self) -> Iterator[tuple[int, Iterator[tuple[Piece, bool]]]]:
        """Yield each database's number and the chosen pieces of it, see `_chosen`."""
        wanted = self.selection.place(DATABASE)
        for number, found in members.in_folder(self._backup.folders[-1], self._backup.last):
            if not wanted or str(number) in wanted:
                yield number, self._chosen(number, found)

    def _chosen(self, number: int, found: Iterator[Piece]) -> Iterator[tuple[Piece, bool]]:
        """Yield pieces, each with whether it is to be added to an index instead of replacing it."""
        takes = merged = False
        for piece in found:
            if piece.first:
                merged = bool(self.selection.conditions) and self._is_index(piece)
                takes = self._in_place(piece) and (merged or self._is_item(number, piece.key))
            if not takes:
                continue
            if not merged:
                yield piece, False
                continue
            elements = [one for one in piece.elements if self._is_item(number, _member(one))]
            if elements:
                # Each piece is whole in itself: adding to an index needs no order.
                yield replace(piece, elements=elements, first=True, more=False), True

    def _in_place(self, piece: Piece) -> bool:
        wanted = self.selection.place(_TYPE)
        return (not wanted or piece.kind in wanted) and (
            not self._patterns or any(matches(one, piece.key) for one in self._patterns)
        )

    def _is_index(self, piece: Piece) -> bool:
        return piece.kind in {SET, ZSET} and any(matches(one, piece.key) for one in self._indexes)

    def _is_item(self, number: int, key: bytes) -> bool:
        """Return whether every condition was true of some key of the same item."""
        return all(
            self._seen.has(b"%d" % at, b"%d" % number, _id(key))
            for at in range(len(self.selection.conditions))
        )

    def _gather(self, number: int, piece: Piece) -> None:
        if self._is_index(piece):
            return
        item, name = document(piece), _id(piece.key)
        for at, condition in enumerate(self.selection.conditions):
            if condition.holds(item, name=name.decode(errors="replace"), fields=self._fields):
                self._seen.add(b"%d" % at, b"%d" % number, name)


def _id(key: bytes) -> bytes:
    return key.rpartition(b":")[2]


def _member(element: Any) -> bytes:
    found: bytes = element[0] if isinstance(element, tuple) else element
    return found


def document(piece: Piece) -> Mapping[str, Any]:
    """Return what a key says in words: the fields of a hash, or the object in a JSON text."""
    if piece.kind == HASH:
        return {
            name.decode(errors="replace"): value.decode(errors="replace")
            for name, value in piece.elements
        }
    if piece.kind == STRING and piece.first and not piece.more and piece.elements[0][:1] == b"{":
        try:
            found = json.loads(piece.elements[0])
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}
    return {}
