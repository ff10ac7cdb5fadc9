"""From the names in a manifest to a chain of stages, and through the chain."""

from __future__ import annotations

import io
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, BinaryIO

from neuroca_backup.errors import IncompatibleVersionError
from neuroca_backup.stages import compression, sealing
from neuroca_backup.streams import CHUNK_BYTES, Unclosed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from neuroca_backup.model.identity import BackupRef
    from neuroca_backup.stages import Stage

# The stages of a new backup, in the order they are applied.
DEFAULT = (compression.NAME, sealing.NAME)


def resolve(
    names: Sequence[str],
    *,
    keyset: sealing.SealingKey,
    ref: BackupRef,
    level: int = 3,
    threads: int = 2,
) -> list[Stage]:
    """Return the stages called `names`, in that order; `level` and `threads` are zstd's.

    Raises:
        IncompatibleVersionError: This program does not know one of them.
    """
    known: dict[str, Stage] = {
        compression.NAME: compression.ZstdStage(level=level, threads=threads),
        sealing.NAME: sealing.SealingStage(keyset, ref),
    }
    for name in names:
        if name not in known:
            raise IncompatibleVersionError(
                f"The backup {ref.backup_id} was made with the stage {name!r}; "
                f"this program knows {', '.join(known)}",
                remedy="Use the version of neuroca-backup that wrote it, or a newer one.",
                value=name,
            )
    return [known[name] for name in names]


@contextmanager
def forward_all(stages: Sequence[Stage], sink: BinaryIO, *, member: str) -> Iterator[BinaryIO]:
    """Give a writer through all of `stages`, the first one first, into `sink`.

    The stages are finished when the block ends, the sink stays open. When the block raises, or a
    stage cannot be finished, no later stage writes its end: what the sink holds will not read back.
    """
    with ExitStack() as stack:
        writer = sink
        for stage in reversed(stages):
            writer = stack.enter_context(stage.forward(writer, member=member))
        yield Unclosed(writer)


@contextmanager
def backward_all(stages: Sequence[Stage], source: BinaryIO, *, member: str) -> Iterator[BinaryIO]:
    """Give a reader of the original bytes of `source`, which stays open.

    `stages` are in the order in which they were applied. The reader raises `DamagedError` where
    `source` is not what was written; only who has read to the end knows that nothing is missing.
    """
    with ExitStack() as stack:
        raw = Unclosed(source)
        reader: BinaryIO = stack.enter_context(io.BufferedReader(raw, CHUNK_BYTES))
        for stage in reversed(stages):
            reader = stack.enter_context(stage.backward(reader, member=member))
        yield reader
