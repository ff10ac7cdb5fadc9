"""The members of an export: their names, their header, and reading them again.

A member is JSON Lines. Its first line is a header, every other one a key or a piece of a large key:

    {"neuroca_memory": 1, "tier": "working", "database": 0}
    {"key": "memory:stm:7", "type": "hash", "expires_at": 4070908800000, "value": [["id", "7"]]}
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from neuroca_backup.engines.working_memory.items import KeyDigest, Piece
from neuroca_backup.memory import tiers
from neuroca_backup.memory.digests import Tally
from neuroca_backup.memory.jsonlines import damaged, records
from neuroca_backup.model.manifest import Manifest

MARK = "neuroca_memory"
# How the names of keys begin that a restore has loaded and not yet put in their place.
STAGED = b"neuroca-restore:"


def name_of(number: int) -> str:
    """Return the name of the member that holds the keys of a logical database."""
    return f"keys/db{number}.jsonl"


def header(tier: str, number: int) -> dict[str, Any]:
    """Return the first line of a member."""
    return {MARK: tiers.FORM, "tier": tier, "database": number}


class DatabaseTally:
    """Counts of a logical database's keys by type, and a digest of all of each type."""

    def __init__(self) -> None:
        self._kinds: dict[str, Tally] = {}
        self._expiring = 0
        self._open: KeyDigest | None = None

    def add(self, piece: Piece) -> KeyDigest | None:
        """Take the next piece; return the digest of the key that it ends, if it ends one."""
        if piece.first or self._open is None:
            self._open = KeyDigest(piece)
            self._expiring += bool(piece.expires_at)
        self._open.add(piece)
        if piece.more:
            return None
        whole, self._open = self._open, None
        self._kinds.setdefault(piece.kind, Tally()).add(*whole.parts())
        return whole

    def facts(self) -> dict[str, Any]:
        """Return what was counted, as JSON."""
        return {
            "keys": sum(one.count for one in self._kinds.values()),
            "expiring": self._expiring,
            "types": {
                kind: {"keys": one.count, "digest": one.digest}
                for kind, one in sorted(self._kinds.items())
            },
        }


def pieces(stream: BinaryIO, *, name: str, tier: str, number: int) -> Iterator[Piece]:
    """Yield every piece of a member.

    Raises:
        DamagedError: It has no header of such a member, or a line is no piece; names the member.
    """
    before: Piece | None = None
    begun = False
    for at, record in records(stream, name=name):
        if not begun:
            if record != header(tier, number):
                raise damaged(name, f"does not begin with a header of database {number}")
            begun = True
            continue
        try:
            before = Piece.of(record, before)
        except (ValueError, TypeError) as error:
            raise damaged(name, f"holds in line {at} {error}") from None
        yield before
    if not begun or (before is not None and before.more):
        raise damaged(name, "ends before its end")


def in_folder(folder: Path, manifest: Manifest) -> Iterator[tuple[int, Iterator[Piece]]]:
    """Return, one after the other, each database's number and the pieces of its member."""
    return _opened(manifest, lambda name: folder.joinpath(*name.split("/")).open("rb"))


def check(manifest: Manifest, open_member: Callable[[str], BinaryIO]) -> None:
    """Read every member and count again.

    Raises:
        DamagedError: A member is missing, or holds something else than was exported.
    """
    names = {member.name for member in manifest.members}
    facts: Mapping[str, Any] = manifest.dump.facts["databases"]
    for number in map(int, facts):
        if name_of(number) not in names:
            raise damaged(name_of(number), "is not part of the backup")
    for number, found in _opened(manifest, open_member):
        tally = DatabaseTally()
        for piece in found:
            tally.add(piece)
        if tally.facts() != facts[str(number)]:
            raise damaged(name_of(number), "holds other keys than were exported")


def _opened(
    manifest: Manifest, open_member: Callable[[str], BinaryIO]
) -> Iterator[tuple[int, Iterator[Piece]]]:
    tier = manifest.dump.facts["tier"]
    for number in map(int, manifest.dump.facts["databases"]):
        name = name_of(number)
        with open_member(name) as stream:
            yield number, pieces(stream, name=name, tier=tier, number=number)
