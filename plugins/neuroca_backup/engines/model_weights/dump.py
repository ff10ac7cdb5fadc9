"""Dumping models: every file once, whole in its own structure, and only where it has changed."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import UTC, datetime

from neuroca_backup.engines import Parent, Sink
from neuroca_backup.engines.model_weights import Options, discovery
from neuroca_backup.engines.model_weights.earlier import Earlier
from neuroca_backup.engines.model_weights.structure import Structures
from neuroca_backup.errors import EmptySourceError
from neuroca_backup.model.manifest import Dump
from neuroca_backup.trees import dumping
from neuroca_backup.trees.dumping import LARGE_BYTES
from neuroca_backup.trees.entries import Entry, shown
from neuroca_backup.trees.totals import Remarks
from neuroca_backup.trees.walking import Found


def dump(sink: Sink, options: Options, parent: Parent | None) -> Dump:
    """Write the chosen models to `sink`.

    Raises:
        EmptySourceError: They have no file.
        TransientError: A file kept changing, or is torn: half written, or cut off.
        NotFoundError, AccessDeniedError, PermanentError: Something cannot be found or read.
    """
    begun = datetime.now(UTC)
    chosen = discovery.models(options)
    remarks = Remarks()
    earlier = Earlier.read(parent, sink, trust_stat=options.trust == "stat", large=LARGE_BYTES)
    structures = Structures(chosen)

    def known(found: Found) -> Entry | None:
        entry = earlier.unchanged(found)
        if entry is None:
            structures.check(found)
            entry = earlier.same_content(found)
        return entry

    totals = dumping.dump(
        discovery.files(chosen, options, remarks=remarks),
        sink,
        remarks=remarks,
        large=LARGE_BYTES,
        known=known,
        each=lambda entry, _: structures.add(entry),
    )
    structures.finish()
    facts = totals.facts()
    if not facts["files"]:
        raise EmptySourceError(
            f"There is no file in {', '.join(map(shown, chosen))}",
            remedy="Look whether the model was moved; its earlier backups are untouched. If it "
            "is not wanted any more, remove its directory or exclude it.",
            value=next(iter(chosen)),
        )
    return Dump(
        server_version=platform.release(),  # of the kernel, which is what serves files
        tools={"python": platform.python_version()},
        consistency={"time": begun.isoformat()},
        facts={"models": {name: str(root) for name, root in chosen.items()}, **facts},
        notes=_notes(remarks, earlier),
    )


def _notes(remarks: Remarks, earlier: Earlier) -> Sequence[str]:
    notes = remarks.sentences()
    if earlier.files:
        notes += (f"{earlier.files:,} files of {earlier.bytes:,} bytes were stored before",)
    return notes
