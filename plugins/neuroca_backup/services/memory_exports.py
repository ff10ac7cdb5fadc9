"""Exports of memory tiers into a directory: the members and manifest of a backup, in clear.

    DIR/<source>/manifest.json     what the export holds, with the digest of every member
    DIR/<source>/files/<member>    as in a backup

An export is complete when its folder has its name; until then that ends in `.partial`.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from pydantic import ValidationError

from neuroca_backup import __version__
from neuroca_backup.engines import Engine, Restorable, RestoreTarget
from neuroca_backup.errors import (
    ComparisonError,
    ConfigurationError,
    DamagedError,
    NotFoundError,
    SpoolError,
)
from neuroca_backup.model.identity import BackupRef, attempt_token, set_id
from neuroca_backup.model.manifest import Manifest, Member
from neuroca_backup.services import pipeline
from neuroca_backup.services.backup import Subject
from neuroca_backup.services.progress import Progress
from neuroca_backup.spool import Folder, member_path, translated
from neuroca_backup.streams import DigestReader

_MANIFEST = "manifest.json"
_PARTIAL = ".partial"


@dataclass(frozen=True, slots=True)
class Import:
    """One export that goes to a target: `only` are the engine's words, `work` a private folder."""

    engine: Engine
    manifest: Manifest
    folder: Path
    target: RestoreTarget
    only: tuple[str, ...] = ()
    work: Path = Path()

    @property
    def backup(self) -> Restorable:
        """The export as a restore gets it."""
        return Restorable(
            chain=(self.manifest,), work=self.work, folders=(self.folder,), only=self.only
        )

    def member(self, name: str) -> BinaryIO:
        """Open a member."""
        return member_path(self.folder, name).open("rb")


def prepare(root: Path, names: Sequence[str]) -> None:
    """Make the directory of exports, mode 0700; names must be free in it.

    Raises:
        ConfigurationError: It is open to others, or has an export of such a name.
    """
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = stat.S_IMODE(root.stat().st_mode)
        taken = [name for name in names if (root / name).exists()]
    except OSError as error:
        raise ConfigurationError(
            f"{root} cannot be used: {error.strerror}",
            remedy="Name a directory, or one that can be made.",
            value=str(root),
        ) from None
    if mode & 0o077:
        raise ConfigurationError(
            f"{root} is open to others (mode {mode:04o}); exports are in clear",
            remedy=f"Run `chmod 700 {root}`, or name a new directory.",
            value=str(root),
        )
    if taken:
        raise ConfigurationError(
            f"{root} already has {', '.join(taken)}",
            remedy="Name a new directory.",
            value=str(root),
        )


def write(subject: Subject, root: Path) -> Manifest:
    """Export a source below `root`, check it, and return its manifest.

    Raises:
        SpoolError: It cannot be written to its end; nothing of it stays.
    """
    folder = Folder(root / f"{subject.name}{_PARTIAL}")
    begun = datetime.now(UTC)
    with translated(root), _cleared(folder.path):
        for path in (folder.path, folder.files):
            path.mkdir(mode=0o700)
        sink = pipeline.SpoolSink(folder, Progress(f"export {subject.name}"))
        dump = subject.engine.dump(subject.endpoint, sink, subject.options)
        pipeline.require_content(dump, sink.sizes, source=subject.name)
        of = set_id(at=begun, run=f"export {attempt_token()}")
        ref = BackupRef.of(of, subject.component, subject.name)
        manifest = Manifest(
            backup_id=ref.backup_id,
            set_id=of,
            component=subject.component,
            source=subject.name,
            engine=subject.kind,
            attempt=attempt_token(),
            stages=(),
            dump=dump,
            members=tuple(
                Member(name=one.name, plain=one.plain, stored=one.current) for one in sink.members
            ),
            started_at=begun,
            finished_at=datetime.now(UTC),
            product=__version__,
        )
        subject.engine.check(manifest, lambda name: member_path(folder.files, name).open("rb"))
        for path in folder.path.rglob("*"):
            path.chmod(0o700 if path.is_dir() else 0o600)
        with os.fdopen(
            os.open(folder.path / _MANIFEST, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb"
        ) as file:
            file.write(manifest.model_dump_json(indent=2).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        folder.path.rename(root / subject.name)
    return manifest


def found(root: Path) -> dict[str, Manifest]:
    """Return the manifests of all complete exports below `root`, by their sources.

    Raises:
        NotFoundError: There is none.
        DamagedError: A manifest is none, or is of another source than its folder says.
    """
    manifests = {}
    for path in sorted(root.glob(f"*/{_MANIFEST}")):
        if path.parent.name.endswith(_PARTIAL):
            continue
        try:
            manifest = Manifest.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise _damaged(path, f"cannot be read ({type(error).__name__})") from None
        if manifest.source != path.parent.name:
            raise _damaged(path, f"is the manifest of {manifest.source}")
        manifests[manifest.source] = manifest
    if not manifests:
        raise NotFoundError(
            f"{root} has no export",
            remedy="Name the directory that memory-export has written.",
            value=str(root),
        )
    return manifests


def files_of(root: Path, manifest: Manifest) -> Path:
    """Return where the members of an export lie."""
    return Folder(root / manifest.source).files


def load(imports: Sequence[Import], *, tell: Callable[[str, str], None]) -> None:
    """Check all imports, load all of them beside what is there, compare, and only then publish.

    `tell` is given the source and a remark of each step.

    Raises:
        DamagedError: A member is not what was exported.
        ComparisonError: What was loaded is not what was exported; no target was changed.
    """
    for one in imports:
        _require_intact(one)
        one.engine.check(one.manifest, one.member)
        _tell(tell, one, one.engine.preflight(one.backup, one.target))
    with tempfile.TemporaryDirectory(prefix="neuroca-import-") as work:
        begun = [replace(one, work=Path(work) / one.manifest.source) for one in imports]
        for one in begun:
            _tell(tell, one, one.engine.load(one.backup, one.target))
        for one in begun:
            differences = one.engine.compare(one.backup, one.target)
            if differences:
                shown = "; ".join(map(str, differences[:10]))
                raise ComparisonError(
                    f"The loaded copy of {one.manifest.source} differs in {len(differences)} "
                    f"ways: {shown}",
                    remedy="No target was changed. Export again, or look for who writes there.",
                    source=one.manifest.source,
                    differences=len(differences),
                )
        for one in begun:
            _tell(tell, one, one.engine.publish(one.backup, one.target))


def _require_intact(one: Import) -> None:
    for member in one.manifest.members:
        try:
            with one.member(member.name) as file:
                name = f"{one.manifest.source}/{member.name}"
                DigestReader(file, expected=member.plain, name=name, store="export").drain()
        except OSError as error:
            raise _damaged(one.folder / member.name, f"cannot be read: {error.strerror}") from None


def _tell(tell: Callable[[str, str], None], one: Import, notes: Sequence[str]) -> None:
    for note in notes:
        tell(one.manifest.source, note)


@contextmanager
def _cleared(partial: Path) -> Iterator[None]:
    """Remove what an earlier export has left, and what this one leaves when it fails."""
    try:
        shutil.rmtree(partial, ignore_errors=True)
        yield
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if partial.exists():
        raise SpoolError(
            f"{partial} is still there", remedy="Remove it, then export again.", path=str(partial)
        )


def _damaged(path: Path, what: str) -> DamagedError:
    return DamagedError(
        f"{path} {what}",
        remedy="Copy the export again from where it came, or export again.",
        key=str(path),
    )
