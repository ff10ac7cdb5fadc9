"""Exports: dumps of sources in a directory or one tar file, in clear, for a person to carry.

`export.json` holds a manifest for each source, `<source>/files/` its members. Nothing of an export
is used before all of it has been read and checked.
"""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from pydantic import ValidationError

from neuroca_backup import __version__, engines
from neuroca_backup.engines import Engine, Restorable
from neuroca_backup.errors import AlreadyExistsError, ConfigurationError, DamagedError
from neuroca_backup.model import document
from neuroca_backup.model.identity import BackupRef, attempt_token, set_id
from neuroca_backup.model.manifest import Manifest, Member
from neuroca_backup.services import pipeline
from neuroca_backup.services.backup import Subject
from neuroca_backup.services.progress import Progress
from neuroca_backup.spool import Folder, member_path, translated
from neuroca_backup.streams import DigestReader, copy

_INDEX = "export.json"
_VERSION = 1
_TAR = ".tar"
_MOST_INDEX_BYTES = 256 * 1024 * 1024
_REMEDY = "Use another copy of the export, or restore from a backup."


@dataclass(frozen=True, slots=True)
class Exported:
    """One source of an export that was read and checked."""

    manifest: Manifest
    folder: Path

    @property
    def engine(self) -> Engine:
        """The engine that made it."""
        return engines.named(self.manifest.engine)

    def open(self, name: str) -> BinaryIO:
        """Return a member's bytes."""
        return member_path(self.folder, name).open("rb")

    def restorable(self, work: Path, only: Sequence[str] = ()) -> Restorable:
        """Return it as an engine restores it."""
        return Restorable(
            chain=(self.manifest,), folders=(self.folder,), work=work, only=tuple(only)
        )


def require_free(output: Path) -> None:
    """Refuse a place where an export cannot be written, before anything is dumped.

    Raises:
        AlreadyExistsError: There is something.
        ConfigurationError: Its name says that it is another kind of file, or its folder is none.
    """
    if output.suffix and output.suffix != _TAR and not output.is_dir():
        raise ConfigurationError(
            f"{output} would not be a {output.suffix} file",
            remedy=f"An export is a directory, or one file with a name that ends in {_TAR}.",
            value=str(output),
        )
    if os.path.lexists(output) and not (_is_directory(output) and not any(output.iterdir())):
        raise AlreadyExistsError(
            f"{output} is there already", remedy="Name another place.", value=str(output)
        )
    if not output.absolute().parent.is_dir():
        raise ConfigurationError(
            f"{output.absolute().parent} is no directory",
            remedy="Create it, or name another place.",
            value=str(output),
        )


def write(subjects: Sequence[Subject], output: Path) -> list[Manifest]:
    """Dump every one of `subjects` into `output`, which only this user may read.

    It is there whole or not at all.
    """
    require_free(output)
    output = output.absolute()
    building = output.with_name(f".{output.name}.{attempt_token()}.partial")
    now = datetime.now(UTC)
    try:
        with translated(building):
            building.mkdir(mode=0o700)
            manifests = [_dump(subject, building / subject.name, now) for subject in subjects]
            body = {
                "version": _VERSION,
                "manifests": [manifest.model_dump(mode="json") for manifest in manifests],
            }
            (building / _INDEX).write_bytes(document.encode(body))
            if output.suffix == _TAR:
                _pack(building, output)
            else:
                if output.is_dir():
                    output.rmdir()
                building.rename(output)
    finally:
        with suppress(FileNotFoundError):
            shutil.rmtree(building)
    return manifests


@contextmanager
def read(path: Path, work: Path) -> Iterator[list[Exported]]:
    """Give the sources of the export at `path`, every byte of it checked.

    A tar is unpacked below `work`, a private folder, for the length of the block.

    Raises:
        ConfigurationError: There is no export.
        DamagedError: It is not what was written.
    """
    if _is_directory(path):
        yield _checked(path)
        return
    unpacked = work / "export"
    unpacked.mkdir(mode=0o700, parents=True)
    try:
        _unpack(path, unpacked)
        yield _checked(unpacked)
    finally:
        shutil.rmtree(unpacked)


def _dump(subject: Subject, root: Path, now: datetime) -> Manifest:
    of = set_id(at=now, run=f"export {subject.name}")
    ref = BackupRef.of(of, subject.component, subject.name)
    folder = Folder(root)
    root.mkdir(mode=0o700)
    folder.files.mkdir(mode=0o700)
    sink = pipeline.SpoolSink(folder, Progress(f"export {subject.name}"))
    dump = subject.engine.dump(subject.endpoint, sink, subject.options)
    pipeline.require_content(dump, sink.sizes, source=subject.name)
    return Manifest(
        backup_id=ref.backup_id,
        set_id=of,
        component=subject.component,
        source=subject.name,
        engine=subject.kind,
        attempt=attempt_token(),
        stages=(),
        dump=dump,
        members=tuple(
            Member(name=one.name, plain=one.plain, stored=one.plain) for one in sink.members
        ),
        started_at=now,
        finished_at=datetime.now(UTC),
        classification=subject.classification.value,
        product=f"neuroca-backup {__version__}",
    )


def _pack(building: Path, output: Path) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    try:
        with os.fdopen(os.open(output, flags, 0o600), "wb") as out:
            with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
                for path in sorted(building.rglob("*")):
                    if path.is_file():
                        tar.add(path, path.relative_to(building).as_posix(), recursive=False)
            out.flush()
            os.fsync(out.fileno())
    except BaseException:
        output.unlink(missing_ok=True)
        raise


def _unpack(path: Path, to: Path) -> None:
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for info in tar:
                content = tar.extractfile(info) if info.isreg() else None
                if content is None:
                    raise _damaged(path, f"{info.name!r} is no file")
                target = member_path(to, info.name)
                with translated(to):
                    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                    with target.open("xb") as out:
                        copy(content, out)  # type: ignore[arg-type]  # a stream that reads
    except FileNotFoundError:
        raise ConfigurationError(
            f"There is no export at {path}", remedy="Correct --input.", value=str(path)
        ) from None
    except (tarfile.TarError, EOFError) as error:
        raise _damaged(path, f"it is no whole tar ({type(error).__name__})") from None
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be read: {error.strerror}", remedy="Correct --input.", value=str(path)
        ) from None


def _checked(root: Path) -> list[Exported]:
    index = root / _INDEX
    try:
        with index.open("rb") as file:
            body = document.decode(file.read(_MOST_INDEX_BYTES), name=str(index))
    except OSError:
        raise ConfigurationError(
            f"{root} is no export: it has no {_INDEX} that can be read",
            remedy="Name what config-export or model-export has written.",
            value=str(root),
        ) from None
    try:
        if body["version"] != _VERSION:
            raise _damaged(index, f"it is of version {body['version']!r}, not {_VERSION}")
        manifests = [Manifest.model_validate(one) for one in body["manifests"]]
    except (KeyError, TypeError, ValidationError):
        raise _damaged(index, "it does not describe an export") from None
    found = [Exported(one, root / one.source / "files") for one in manifests]
    for one in found:
        for member in one.manifest.members:
            _check_member(one, member)
        one.engine.check(one.manifest, one.open)
    return found


def _check_member(one: Exported, member: Member) -> None:
    try:
        with one.open(member.name) as raw:
            DigestReader(raw, expected=member.plain, name=member.name, store="the export").drain()
    except OSError as error:
        raise _damaged(one.folder, f"{member.name} cannot be read: {error.strerror}") from None


def _is_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _damaged(path: Path, problem: str) -> DamagedError:
    return DamagedError(f"{path} is damaged: {problem}", remedy=_REMEDY, key=str(path))
