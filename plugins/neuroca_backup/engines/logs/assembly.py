"""Putting files together again from the pieces of a chain of backups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Self

from neuroca_backup.engines.logs import pieces
from neuroca_backup.engines.logs.content import Content
from neuroca_backup.engines.logs.pieces import Piece, archive_name
from neuroca_backup.errors import DamagedError
from neuroca_backup.model.manifest import Manifest
from neuroca_backup.streams import RawStream

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


@dataclass(frozen=True, slots=True)
class _Where:
    """A piece begins at `offset` of the file `path`."""

    path: Path
    offset: int


class Assembly(AbstractContextManager["Assembly"]):
    """The pieces of some backups, each found by its SHA-256.

    Args:
        chain: The manifests, the full backup first.
        folders: Where their members lie, in the same order.
    """

    def __init__(self, chain: Sequence[Manifest], folders: Sequence[Path]) -> None:
        self._where = dict(_found(chain, folders))
        self._stack = ExitStack()
        self._open: tuple[Path, BinaryIO] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the archive that was read last."""
        self._stack.close()

    def stream(self, content: Content, *, path: str) -> BinaryIO:
        """Return the bytes of `content`, which belongs to `path`.

        Raises:
            DamagedError: No backup of the chain has one of its pieces.
        """
        for piece in content.pieces:
            if piece.sha256 not in self._where:
                raise DamagedError(
                    f"No backup of the chain has the piece {piece.sha256} of /{path}",
                    remedy="Restore from another store, or an older backup; then take a full one.",
                    key=piece.sha256,
                )
        return _Joined(self, content.pieces)

    def read(self, piece: Piece, offset: int, view: memoryview) -> int:
        """Read bytes of `piece` from `offset` on into `view`; return how many, 0 at its end."""
        where = self._where[piece.sha256]
        if self._open is None or self._open[0] != where.path:
            self._stack.close()
            self._open = (where.path, self._stack.enter_context(where.path.open("rb")))
        archive = self._open[1]
        archive.seek(where.offset + offset)
        return archive.readinto(view[: piece.size - offset])  # type: ignore[attr-defined,no-any-return]  # a file


class _Joined(RawStream):
    """Some pieces one after the other."""

    def __init__(self, assembly: Assembly, wanted: Sequence[Piece]) -> None:
        super().__init__()
        self._assembly = assembly
        self._wanted = iter(wanted)
        self._piece: Piece | None = next(self._wanted, None)
        self._offset = 0

    def readable(self) -> bool:
        """Return True: bytes may be read."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Read into `buffer`; return the number of bytes, 0 at the end."""
        view = memoryview(buffer).cast("B")
        while self._piece is not None and len(view):
            if self._offset == self._piece.size:
                self._piece, self._offset = next(self._wanted, None), 0
                continue
            count = self._assembly.read(self._piece, self._offset, view)
            if not count:
                raise DamagedError(
                    f"The piece {self._piece.sha256} is cut short",
                    remedy="Run the restore from its fetch step on.",
                    key=self._piece.sha256,
                )
            self._offset += count
            return count
        return 0


def _found(chain: Sequence[Manifest], folders: Sequence[Path]) -> Iterator[tuple[str, _Where]]:
    """Yield every piece of every archive by its SHA-256, with its place."""
    for manifest, folder in zip(chain, folders, strict=True):
        for number in range(1, manifest.dump.facts["archives"] + 1):
            name = archive_name(number)
            path = folder / name
            with path.open("rb") as stream:
                for placed in pieces.listed(stream, name=f"{manifest.backup_id}/{name}"):
                    yield placed.piece.sha256, _Where(path, placed.offset)
