"""Checking an RDB without a server: its structure from the first byte to the last."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

from neuroca_backup.engines.redis_rdb import rdb
from neuroca_backup.engines.redis_rdb.dump import facts_of
from neuroca_backup.engines.redis_rdb.reader import Reader
from neuroca_backup.engines.redis_rdb.snapshot import MEMBER
from neuroca_backup.errors import DamagedError, IncompatibleVersionError
from neuroca_backup.model.manifest import Manifest

_REMEDY = "Restore from another store, or another backup."


def check(manifest: Manifest, open_member: Callable[[str], BinaryIO]) -> None:
    """Walk through the RDB and hold what it has against the manifest's facts.

    Raises:
        DamagedError: It is missing or has another structure; names the member.
    """
    if MEMBER not in {member.name for member in manifest.members}:
        raise DamagedError(f"{manifest.backup_id} has no {MEMBER}", remedy=_REMEDY, key=MEMBER)
    with open_member(MEMBER) as file:
        reader = Reader(file.read)
        try:
            contents = rdb.walk(reader, name=MEMBER)
        except IncompatibleVersionError as error:
            if error.facts["version"] == manifest.dump.facts["rdb_version"]:
                raise
            raise DamagedError(error.problem, remedy=_REMEDY, key=MEMBER) from None
        if not reader.at_end():
            raise DamagedError(
                f"{MEMBER} goes on after the end of its RDB at {contents.size:,} bytes",
                remedy=_REMEDY,
                key=MEMBER,
            )
    found, known = facts_of(contents), manifest.dump.facts
    other = [word for word, value in found.items() if known.get(word) != value]
    if other:
        raise DamagedError(
            f"{MEMBER} does not hold what its manifest says: {', '.join(other)} differ",
            remedy=_REMEDY,
            key=MEMBER,
        )
