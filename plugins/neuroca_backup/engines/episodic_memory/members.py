"""The members of an export: of each collection its definition and its documents."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

from neuroca_backup.engines.episodic_memory import documents
from neuroca_backup.engines.episodic_memory.definitions import VIEW, Definition
from neuroca_backup.memory import tiers
from neuroca_backup.memory.digests import Tally
from neuroca_backup.memory.jsonlines import damaged, lines
from neuroca_backup.model.manifest import Manifest

MARK = "neuroca_memory"
_LARGEST_DEFINITION = 64 * 1024 * 1024


def documents_of(namespace: str) -> str:
    """Return the name of the member that holds the documents of a collection."""
    return f"{_base(namespace)}.jsonl"


def definition_of(namespace: str) -> str:
    """Return the name of the member that holds the definition of a collection."""
    return f"{_base(namespace)}.collection.json"


def _base(namespace: str) -> str:
    database, _, name = namespace.partition(".")
    return f"{quote(database, safe='')}/{quote(name, safe='').replace('.', '%2E')}"


def definition_bytes(tier: str, definition: Definition) -> bytes:
    """Return the member of a definition."""
    body = {MARK: tiers.FORM, "tier": tier, **definition.document()}
    return json.dumps(body, indent=2, ensure_ascii=False).encode() + b"\n"


def known(manifest: Manifest) -> dict[str, Definition]:
    """Return the definitions that the manifest has, by namespace."""
    facts: Mapping[str, Any] = manifest.dump.facts["collections"]
    return {name: Definition.of(json.loads(one["definition"])) for name, one in facts.items()}


def read(stream: BinaryIO, *, name: str) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Yield the BSON and the meaning of each line of a member.

    Raises:
        DamagedError: A line is no document; names the member.
    """
    for number, text in enumerate(lines(stream, name=name), 1):
        try:
            yield documents.encoded(text)
        except ValueError as error:
            raise damaged(name, f"holds in line {number} {error}") from None


@contextmanager
def in_folder(folder: Path, namespace: str) -> Iterator[Iterator[tuple[bytes, dict[str, Any]]]]:
    """Give the documents of a collection that was fetched."""
    name = documents_of(namespace)
    with folder.joinpath(*name.split("/")).open("rb") as stream:
        yield read(stream, name=name)


def check(manifest: Manifest, open_member: Callable[[str], BinaryIO]) -> None:
    """Read every member, turn every line into BSON again, and count.

    Raises:
        DamagedError: A member is missing, or holds something else than was exported.
    """
    names = {member.name for member in manifest.members}
    tier = manifest.dump.facts["tier"]
    for namespace, definition in known(manifest).items():
        facts = manifest.dump.facts["collections"][namespace]
        wanted = [definition_of(namespace)]
        wanted += [documents_of(namespace)] if definition.kind != VIEW else []
        for name in wanted:
            if name not in names:
                raise damaged(name, "is not part of the backup")
        with open_member(wanted[0]) as stream:
            data = b"".join(iter(lambda: stream.read(_LARGEST_DEFINITION), b""))
        if data != definition_bytes(tier, definition):
            raise damaged(wanted[0], "does not define the collection that was exported")
        tally = Tally()
        for name in wanted[1:]:
            with open_member(name) as stream:
                for raw, _ in read(stream, name=name):
                    tally.add(raw)
            if (tally.count, tally.digest) != (facts["documents"], facts["digest"]):
                raise damaged(
                    name,
                    f"holds {tally.count} documents and not the {facts['documents']} that were "
                    "exported",
                )
