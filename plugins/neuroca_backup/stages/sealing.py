"""Sealing: Tink's streaming AEAD. What is unsealed is what was sealed, in its place, or an error.

The format is described at https://developers.google.com/tink/streaming-aead. Tink itself is
imported where it is first used: it costs half a second that a `--help` should not pay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, cast

from neuroca_backup.errors import DamagedError, PermanentError
from neuroca_backup.model import document
from neuroca_backup.stages.transforming import FinishingWriter, read_chunks
from neuroca_backup.streams import CHUNK_BYTES, Unclosed, write_all

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed import ReadableBuffer

    from neuroca_backup.model.identity import BackupRef

NAME = "tink-aes256-gcm-hkdf-1mb"

_REMEDY = "Restore from another store, then replicate this backup again."


class SealingKey(Protocol):
    """Whatever holds the key of a backup; the keyring's keyset does."""

    def streaming_aead(self) -> Any:
        """Return Tink's StreamingAead primitive."""
        ...


def associated_data(ref: BackupRef, *, member: str) -> bytes:
    """Return what binds a sealed object to its place: it unseals there and nowhere else."""
    return document.canonical(
        {"backup_id": ref.backup_id, "component": str(ref.component), "member": member}
    )


class SealingStage:
    """Seals the members of the backup `ref` with the key of `keyset`."""

    name = NAME

    def __init__(self, keyset: SealingKey, ref: BackupRef) -> None:
        self._keyset = keyset
        self._ref = ref

    def forward(self, sink: BinaryIO, *, member: str) -> BinaryIO:
        """Return a writer that seals into `sink`; closing it writes the last segment."""
        return _Sealing(
            self._keyset.streaming_aead(),
            sink,
            associated_data=associated_data(self._ref, member=member),
            member=member,
        )

    def backward(self, source: BinaryIO, *, member: str) -> BinaryIO:
        """Return a reader of the original bytes.

        Every byte it gives is authentic; whether bytes are missing shows at the end.

        Raises:
            DamagedError: From `read`, where `source` was not sealed for this place or has changed.
        """
        bound = associated_data(self._ref, member=member)
        return read_chunks(_unseal(self._keyset, source, bound, member))


class _Border(Unclosed):
    """Our side of Tink: Tink closes its stream, and replaces our errors by a text of its own."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__(stream)
        self.error: BaseException | None = None
        self.discard = False

    def read(self, size: int = -1) -> bytes:
        try:
            return self._stream.read(size)
        except BaseException as error:
            self.error = error
            raise

    def write(self, data: ReadableBuffer) -> int:
        if self.discard:
            return len(memoryview(data))
        try:
            return write_all(self._stream, data)
        except BaseException as error:
            self.error = error
            raise


class _Sealing(FinishingWriter):
    def __init__(self, aead: Any, sink: BinaryIO, *, associated_data: bytes, member: str) -> None:
        super().__init__()
        self._member = member
        self._border = _Border(sink)
        self._tink = self._guard(aead.new_encrypting_stream, self._border, associated_data)

    def abandon(self) -> None:
        # Tink's writer ends its stream when it is garbage collected: that must reach nobody.
        if not self.closed:
            self._border.discard = True
        super().abandon()

    def _take(self, data: memoryview) -> None:
        self._guard(self._tink.write, data)

    def _finish(self) -> None:
        self._guard(self._tink.close)

    def _guard(self, call: Any, *arguments: Any) -> Any:
        from tink import TinkError  # noqa: PLC0415 - slow to import, see above

        try:
            return call(*arguments)
        except TinkError as error:
            if self._border.error is not None:
                raise self._border.error from None
            raise PermanentError(
                f"The member {self._member} could not be sealed: {error}",
                remedy="Check the installation of tink with `python -c 'import tink'`.",
                key=self._member,
            ) from error


def _unseal(key: SealingKey, source: BinaryIO, bound: bytes, member: str) -> Iterator[bytes]:
    from tink import TinkError  # noqa: PLC0415 - slow to import, see above

    border = _Border(source)
    try:
        opened = cast("BinaryIO", key.streaming_aead().new_decrypting_stream(border, bound))
        while chunk := opened.read(CHUNK_BYTES):
            yield chunk
    except TinkError:
        if border.error is not None:
            raise border.error from None
        # Tink does not tell these cases apart.
        raise DamagedError(
            f"The sealed member {member} is damaged: it was changed, cut, lengthened, or sealed "
            "for another place or with another key",
            remedy=_REMEDY,
            key=member,
        ) from None
