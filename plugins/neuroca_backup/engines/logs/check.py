"""Reading a backup of logs without restoring it: every piece, and the state of the tree."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO

from neuroca_backup.engines.logs import pieces, state
from neuroca_backup.model.manifest import Manifest
from neuroca_backup.trees.entries import damaged


def check(manifest: Manifest, open_member: Callable[[str], BinaryIO]) -> None:
    """Check that every piece is what its name says, and that none is missing.

    A full backup has to hold all that its state refers to; what an incremental one refers to in
    earlier backups is for their own checks, and for a restore.

    Raises:
        DamagedError: A member is missing, or not what it should be; names it.
    """
    facts = manifest.dump.facts
    names = {member.name for member in manifest.members}
    found: set[str] = set()
    count, last = 0, state.NAME
    for number in range(1, facts["archives"] + 1):
        name = pieces.archive_name(number)
        with _member(name, names, open_member) as stream:
            for piece in pieces.checked(stream, name=name):
                found.add(piece.sha256)
                count += 1
        last = name
    if count != facts["pieces"] or len(found) != count:
        raise damaged(last, f"it and those before it hold {count} of {facts['pieces']} pieces")
    with _member(state.NAME, names, open_member) as stream:
        fingerprint = state.fingerprint(_complete(manifest, stream, found))
    if fingerprint != facts["fingerprint"]:
        raise damaged(state.NAME, "it describes another tree than the manifest")


def _complete(manifest: Manifest, stream: BinaryIO, found: set[str]) -> Iterator[state.Entry]:
    """Yield the entries of a state, whose pieces a full backup has to hold."""
    for entry in state.read(stream):
        for piece in entry.content.pieces if entry.content else ():
            if manifest.kind == "full" and piece.sha256 not in found:
                raise damaged(state.NAME, f"it refers to a piece that is missing: {piece.sha256}")
        yield entry


def _member(name: str, names: set[str], open_member: Callable[[str], BinaryIO]) -> BinaryIO:
    if name not in names:
        raise damaged(name, "it is not part of the backup")
    return open_member(name)
