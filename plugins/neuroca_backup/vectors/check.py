"""Reading a dump's structure without a server: every row of every part, in memory part by part."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from neuroca_backup.model.manifest import Manifest
from neuroca_backup.vectors import columns, parts
from neuroca_backup.vectors.database import Key
from neuroca_backup.vectors.model import Collection

_LARGEST_SCHEMA = 16 * 1024 * 1024


def check(manifest: Manifest, open_member: Callable[[str], BinaryIO]) -> None:
    """Check that every collection is described, and has all its rows and its samples.

    Raises:
        DamagedError: A member is missing, is no Parquet file of such rows, or lacks some.
    """
    names = {member.name for member in manifest.members}
    for known in manifest.dump.facts["collections"].values():
        collection = Collection.model_validate(known["schema"])
        member = f"{parts.folder_of(collection.at)}/{parts.SCHEMA}"
        if member not in names:
            raise parts.damaged(member, "is not part of the backup")
        with open_member(member) as stream:
            data = stream.read(_LARGEST_SCHEMA)
        try:
            same = Collection.model_validate_json(data) == collection
        except ValueError:
            same = False
        if not same or collection.fingerprint != known["fingerprint"]:
            raise parts.damaged(member, "does not describe the collection that was exported")
        for partition, count in known["partitions"].items():
            _check_rows(collection, partition, count, known, names, open_member)


def _check_rows(
    collection: Collection,
    partition: str,
    count: int,
    known: Mapping[str, Any],
    names: set[str],
    open_member: Callable[[str], BinaryIO],
) -> None:
    folder = parts.partition_folder(collection.at, collection, partition)
    schema = columns.schema_of(collection)
    wanted: dict[Key, str] = {
        key: digest for where, key, digest in known["samples"] if where == partition
    }
    rows = 0
    members = parts.part_names(names, folder)
    for number, member in enumerate(members):
        # A part that is missing shows in the numbers even if counts were to agree.
        if member != f"{folder}/part-{number:05d}.parquet":
            raise parts.damaged(f"{folder}/part-{number:05d}.parquet", "is not part of the backup")
        with open_member(member) as stream:
            for batch in parts.read_stream(stream, member, schema):
                rows += batch.num_rows
                _check_samples(collection, batch, wanted, member)
    if rows != count or wanted:
        raise parts.damaged(
            members[-1] if members else f"{folder}/part-00000.parquet",
            f"and the parts before it hold {rows} rows and lack {len(wanted)} samples; "
            f"{count} rows were exported",
        )


def _check_samples(collection: Collection, batch: Any, wanted: dict[Key, str], member: str) -> None:
    for index, key in enumerate(columns.keys_of(batch, collection)):
        if key in wanted and columns.digest(collection, batch, index) != wanted.pop(key):
            raise parts.damaged(member, f"holds another row {key} than was exported")
