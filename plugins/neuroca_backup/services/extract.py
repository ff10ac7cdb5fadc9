"""Taking one member out of a backup, as the bytes that the engine gave."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from neuroca_backup.errors import (
    AlreadyExistsError,
    BackupError,
    NotFoundError,
    PermanentError,
)
from neuroca_backup.keyring.keys_document import Keyring
from neuroca_backup.model.identity import BackupRef
from neuroca_backup.model.manifest import Manifest, Member
from neuroca_backup.services.fetch import authenticate
from neuroca_backup.services.keysets import Keysets
from neuroca_backup.services.progress import Progress
from neuroca_backup.stages import compression
from neuroca_backup.stages.resolve import backward_all, resolve
from neuroca_backup.stores import Store
from neuroca_backup.streams import DigestReader, copy

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Extracted:
    """What was written: bytes, the store they came from, and why others were passed over."""

    store: str
    size: int
    fallbacks: tuple[str, ...]


def extract(
    ref: BackupRef,
    member: str,
    *,
    output: Path,
    stores: Sequence[Store],
    keyring: Keyring,
    raw: bool = False,
) -> Extracted:
    """Write `member` to the new file `output` (mode 0600) from the first of `stores` that can.

    Every digest is checked. With `raw` the member stays compressed. On any error there is no file.

    Raises:
        AlreadyExistsError: There is a file; it is left as it is.
        NotFoundError: The backup has no such member; lists those it has.
        BackupError: A store's own, when none could give the member.
    """
    errors: list[BackupError] = []
    fallbacks: list[str] = []
    with _new_file(output) as out:
        for store in stores:
            try:
                size = _copy((store, *stores), ref, member, keyring, out, raw=raw)
            except _NoMemberError:
                raise
            except BackupError as error:
                errors.append(error)
                fallbacks.append(f"{store.name} is left out: {error.problem}")
                log.warning("%s", fallbacks[-1])
                out.seek(0)
                out.truncate()
            else:
                return Extracted(store=store.name, size=size, fallbacks=tuple(fallbacks))
        # What a person has to mend says more than a store that may answer later.
        raise next((error for error in errors if isinstance(error, PermanentError)), errors[0])


def _copy(
    stores: Sequence[Store],
    ref: BackupRef,
    name: str,
    keyring: Keyring,
    out: BinaryIO,
    *,
    raw: bool,
) -> int:
    """Copy the member from the first of `stores`; keys of an earlier backup may be in any."""
    store = stores[0]
    manifest, own = authenticate(store, ref, keyring)
    member = _member(manifest, name)
    origin = manifest.origin_of(member)
    keyset = Keysets(manifest, own, stores=stores, keyring=keyring).of(member)
    names = [one for one in origin.stages if not (raw and one == compression.NAME)]
    stages = resolve(names, keyset=keyset, ref=manifest.holder_of(member))
    key = manifest.key_of(member)
    expected = None if raw else member.plain
    progress = Progress(f"decrypt {name}", total=None if expected is None else expected.size)
    with store.reader(key) as opened:
        stored = DigestReader(opened, expected=member.stored, name=key, store=store.name)
        with backward_all(stages, stored, member=origin.name) as plain:
            checked = DigestReader(plain, expected=expected, name=key, store=store.name)
            copy(checked, out, on_bytes=progress.add)
        stored.drain()
    return progress.done


class _NoMemberError(NotFoundError):
    """The backup is there and its member is not: no other store can help."""


def _member(manifest: Manifest, name: str) -> Member:
    for member in manifest.members:
        if member.name == name:
            return member
    shown = ", ".join(member.name for member in manifest.members[:20])
    more = len(manifest.members) - 20
    raise _NoMemberError(
        f"{manifest.backup_id} has no member {name!r}",
        remedy=f"It has {shown}" + (f" and {more} more" if more > 0 else "") + ".",
        value=name,
    )


@contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    """Give a new file that is on disk when the block ends, and gone when the block raises."""
    with _translated(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with _translated(path), os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except FileExistsError:
        raise AlreadyExistsError(
            f"{path} already exists, and nothing is overwritten",
            remedy="Choose another name.",
            path=str(path),
        ) from None
    except OSError as error:
        raise PermanentError(
            f"{path} cannot be written: {error.strerror}",
            remedy="Choose a folder that you may write to, on a disk with space.",
            path=str(path),
        ) from error
