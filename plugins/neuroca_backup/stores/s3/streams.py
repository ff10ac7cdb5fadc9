"""The two byte streams of an S3 object: written in parts of growing size, read with resumption.

S3 takes at most 10,000 parts, and the length of a stream is not known beforehand. So the size of
a part grows with what was already sent: small backups need little memory, and 10,000 parts hold
more than 5 TB. https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
"""

from __future__ import annotations

import io
import logging
import re
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from botocore.exceptions import BotoCoreError, ClientError, FlexibleChecksumError
from urllib3.exceptions import HTTPError

from neuroca_backup.errors import BackupError, DamagedError, PermanentError, StoreUnavailableError
from neuroca_backup.stores.s3.objects import S3Object, abort, put_part, put_whole

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Buffer

_log = logging.getLogger(__name__)

MIB = 1024 * 1024
FIRST_PART = 16 * MIB
MAX_PARTS = 10_000
PARTS_IN_FLIGHT = 3
IN_FLIGHT_BYTES = 256 * MIB
"""Above this the parts are so large that one connection is busy enough; memory decides."""
_GROWTH = 1_900
"""A part is larger by 1/1,900 of what was sent: the 10,000 parts then hold 5.5 TiB."""
_RESUMES = 8
"""How often one reader goes on after a cut; the SDK's own retries of each request come on top."""
_READ_BUFFER = MIB
_CONTENT_RANGE = re.compile(r"bytes (?P<first>\d+)-\d+/(?P<total>\d+)")


def part_size(sent: int) -> int:
    """Return the size in bytes of the part that follows `sent` bytes."""
    return FIRST_PART + sent // _GROWTH


@contextmanager
def writing(target: S3Object) -> Iterator[BinaryIO]:
    """Open `target` for a stream of any length; it appears when the block ends without an error.

    Memory: the part being filled plus up to three in flight, and no more than 256 MiB in flight
    where that allows two of them; 64 MiB for a small object, about 0.5 GiB after 500 GB.
    """
    writer = _PartWriter(target)
    try:
        yield cast("BinaryIO", writer)
        writer.finish()
    except BaseException:
        writer.abandon()
        raise
    finally:
        writer.close()


class _PartWriter(io.RawIOBase):
    """Collects a part, hands it to a small pool of threads, and goes on with the next.

    Closing it ends the writing and nothing else: what makes the object appear is `finish`.
    """

    def __init__(self, target: S3Object) -> None:
        self._target = target
        self._buffer = bytearray()
        self._size = part_size(0)
        self._sent = 0
        self._count = 0
        self._upload_id = ""
        self._pool: ThreadPoolExecutor | None = None
        self._in_flight: deque[Future[dict[str, Any]]] = deque()
        self._parts: list[dict[str, Any]] = []
        self._whole = True

    def writable(self) -> bool:
        return True

    def write(self, data: Buffer) -> int:
        """Take all of `data`; raises what sending an earlier part raised."""
        if self.closed:
            raise ValueError("write to a closed object writer")
        self._refuse_if_broken()
        view = memoryview(data).cast("B")
        taken = 0
        self._whole = False
        while taken < len(view):
            piece = view[taken : taken + self._size - len(self._buffer)]
            self._buffer += piece
            taken += len(piece)
            if len(self._buffer) == self._size:
                self._send()
        self._whole = True
        return taken

    def finish(self) -> None:
        """Make the object appear."""
        target = self._target
        self._refuse_if_broken()
        if not self._upload_id:
            with target.translated():
                put_whole(target, self._buffer, **target.placed(len(self._buffer)))
            return
        if self._buffer:
            self._send()
        self._settle(0)
        with target.translated():
            # MpuObjectSize makes S3 itself refuse to complete with a part too few.
            target.client.complete_multipart_upload(
                **target.address,
                UploadId=self._upload_id,
                MultipartUpload={"Parts": self._parts},
                MpuObjectSize=self._sent,
            )
        self._stop()

    def abandon(self) -> None:
        """Remove the parts already sent.

        A failure to do so is logged: an error is under way already, and `sweep_uploads` removes
        what is left.
        """
        self._stop()
        if self._upload_id:
            try:
                abort(self._target, self._upload_id)
            except BackupError as error:
                _log.warning("Upload %s was left behind: %s", self._upload_id, error)

    def _refuse_if_broken(self) -> None:
        """Keep a caller who swallowed the error of a write from storing a shortened object."""
        if not self._whole:
            raise StoreUnavailableError(
                f"{self._target.label}: a part could not be sent, and writing went on",
                remedy="Write it again from the start.",
                key=self._target.key,
            )

    def _send(self) -> None:
        if self._count == MAX_PARTS:
            raise PermanentError(
                f"{self._target.label} is longer than {self._sent:,} bytes, which is all that "
                f"{MAX_PARTS:,} parts hold",
                remedy="Split the source into several members.",
                key=self._target.key,
            )
        if self._pool is None:
            self._pool = ThreadPoolExecutor(PARTS_IN_FLIGHT, thread_name_prefix="s3-part")
            with self._target.translated():
                self._upload_id = self._target.client.create_multipart_upload(
                    **self._target.address, **self._target.placed(), ChecksumAlgorithm="SHA256"
                )["UploadId"]
        body, self._buffer = self._buffer, bytearray()
        self._settle(max(1, min(PARTS_IN_FLIGHT, IN_FLIGHT_BYTES // len(body))) - 1)
        self._count += 1
        self._sent += len(body)
        self._size = part_size(self._sent)
        self._in_flight.append(
            self._pool.submit(
                put_part, self._target, body, upload_id=self._upload_id, number=self._count
            )
        )

    def _settle(self, at_most: int) -> None:
        """Wait until no more than `at_most` parts are in flight."""
        while len(self._in_flight) > at_most:
            self._parts.append(self._in_flight.popleft().result())

    def _stop(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def reading(target: S3Object, *, start: int, length: int | None) -> Iterator[BinaryIO]:
    """Open `target` from byte `start`, at most `length` bytes; raises at once if it is missing."""
    with io.BufferedReader(
        _RangeReader(target, start=start, length=length), _READ_BUFFER
    ) as reader:
        yield reader


class _RangeReader(io.RawIOBase):
    """Delivers exactly the bytes the store promised, or raises.

    A broken transfer goes on where it broke, from the same version of the object or not at all.
    """

    def __init__(self, target: S3Object, *, start: int, length: int | None) -> None:
        self._target = target
        self._position = start
        self._resumes = 0
        self._etag = ""
        self._body: Any = io.BytesIO()
        self._end = start
        if length == 0:
            with target.translated():
                target.client.head_object(**target.address)
            return
        asked = f"bytes={start}-" if length is None else f"bytes={start}-{start + length - 1}"
        with target.translated():
            try:
                answer = self._request({"Range": asked} if asked != "bytes=0-" else {})
            except ClientError as error:
                if error.response["Error"]["Code"] in {"InvalidRange", "416"}:
                    return  # The object ends before `start`.
                raise
        self._end = start + int(answer["ContentLength"])
        total = self._total(answer)
        if self._end != (total if length is None else min(start + length, total)):
            raise self._cut(f"it offers bytes {start:,}-{self._end:,} of {total:,}")
        self._etag = answer["ETag"]

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer) -> int:
        """Read some bytes; 0 only at the end of what was asked for."""
        view = memoryview(buffer).cast("B")
        if not len(view):
            return 0
        while True:
            cause: Exception | None = None
            try:
                # At the end this reads once more, which makes the SDK compare its checksum.
                count: int = self._body.readinto(view)
            except FlexibleChecksumError as error:
                raise DamagedError(
                    f"{self._target.label} does not match the checksum the store keeps of it",
                    remedy="Read it again; if that fails, use the copy in another store.",
                    key=self._target.key,
                ) from error
            except (BotoCoreError, HTTPError, OSError) as error:
                count, cause = 0, error
            if count or self._position == self._end:
                self._position += count
                return count
            self._resume(cause)

    def close(self) -> None:
        if not self.closed:
            self._body.close()
        super().close()

    def _resume(self, cause: Exception | None) -> None:
        """Ask for the rest; the ETag makes sure that it is the rest of the same bytes."""
        self._body.close()
        if self._resumes == _RESUMES:
            raise self._cut(f"it was cut {_RESUMES + 1} times") from cause
        self._resumes += 1
        rest = f"bytes={self._position}-{self._end - 1}"
        with self._target.translated():
            try:
                answer = self._request({"Range": rest, "IfMatch": self._etag})
            except ClientError as error:
                if error.response["Error"]["Code"] in {"PreconditionFailed", "412"}:
                    raise self._cut("it was replaced while it was read") from error
                raise
        self._total(answer)
        if int(answer["ContentLength"]) != self._end - self._position:
            raise self._cut("the store gave another range than the one asked for") from cause

    def _request(self, conditions: dict[str, str]) -> dict[str, Any]:
        answer: dict[str, Any] = self._target.client.get_object(
            **self._target.address, **conditions
        )
        self._body = answer["Body"]
        return answer

    def _total(self, answer: dict[str, Any]) -> int:
        """Return the size of the whole object, having checked where the answer starts."""
        promised = answer.get("ContentRange")
        if promised is None and self._position == 0:
            return int(answer["ContentLength"])
        match = _CONTENT_RANGE.fullmatch(str(promised))
        if match is None or int(match["first"]) != self._position:
            raise self._cut(f"the store answered with the range {promised!r}")
        return int(match["total"])

    def _cut(self, what: str) -> StoreUnavailableError:
        return StoreUnavailableError(
            f"{self._target.label}: reading stopped at byte {self._position:,}: {what}",
            remedy="Read it again; if that keeps happening look at the network and at the store.",
            key=self._target.key,
            position=self._position,
        )
