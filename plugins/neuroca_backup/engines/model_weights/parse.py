"""Reading the members of a backup of models without a disk to restore them to."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

from neuroca_backup.engines.model_weights import formats
from neuroca_backup.engines.model_weights.sequential import TornError
from neuroca_backup.engines.model_weights.structure import Shards, alias
from neuroca_backup.model.manifest import Manifest
from neuroca_backup.streams import DigestReader
from neuroca_backup.trees.archive import INDEX, TAR, check_index, contents, read_index
from neuroca_backup.trees.entries import Entry, Kind, damaged, shown

OpenMember = Callable[[str], BinaryIO]


def check(manifest: Manifest, open_member: OpenMember) -> None:
    """Check index, tar, every content, the structure of model files, and that no shard lacks.

    Raises:
        DamagedError: Something is not what was backed up; names the member.
    """
    links = {target: entry.path for entry in read_index(open_member) if (target := alias(entry))}
    held = {member.name for member in manifest.members} - {INDEX, TAR}
    check_index(open_member, manifest.dump.facts)  # first: then it is known whose fault it is
    shards = Shards()
    for entry, content in contents(open_member):
        if entry.kind is not Kind.DIRECTORY:
            shards.add(entry.path)
        if entry.kind is not Kind.FILE:
            continue
        name = links.get(entry.path, entry.path)
        if content is not None:
            _check(entry, name, content, shards)
            continue
        if entry.member not in held:
            raise damaged(INDEX, f"{entry.member} is no member of the backup")
        held.discard(entry.member)
        with open_member(entry.member) as stream:
            _check(entry, name, stream, shards)
    if held:
        raise damaged(INDEX, f"it does not name the member {min(held)}")
    missing = shards.missing()
    if missing is not None:
        raise damaged(INDEX, f"it lacks {shown(missing[0])}, which {shown(missing[1])} names")


def _check(entry: Entry, name: str, stream: BinaryIO, shards: Shards) -> None:
    """Check structure and digest of one content in one pass."""
    member = entry.member or TAR
    reader = DigestReader(stream)
    try:
        shards.expect(name, formats.check(name, reader, entry.size))
    except TornError as error:
        raise damaged(member, f"{shown(entry.path)} is torn: {error}") from None
    found = reader.drain()
    if (found.size, found.sha256) != (entry.size, entry.sha256):
        raise damaged(member, f"{shown(entry.path)} is not what was backed up")
