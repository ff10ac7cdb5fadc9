"""One engine's dump in a folder, and its restore, without stores and stages around."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from neuroca_backup.engines import Restorable, RestoreTarget
from neuroca_backup.model.identity import BackupRef, Component, set_id
from neuroca_backup.model.manifest import Manifest, Member
from neuroca_backup.services.pipeline import SpoolSink
from neuroca_backup.services.progress import Progress
from neuroca_backup.spool import Folder

if TYPE_CHECKING:
    from neuroca_backup.engines import Engine
    from neuroca_backup.model.endpoint import Endpoint


@dataclass(frozen=True)
class Dumped:
    """A dump in a folder, as a restore would have fetched it."""

    manifest: Manifest
    files: Path

    def restorable(self, *only: str, work: str = "work") -> Restorable:
        """The dump, or a part of it, as a restore gets it."""
        return Restorable(
            chain=(self.manifest,),
            folders=(self.files,),
            work=self.files.parent / work,
            only=only,
        )

    def open(self, name: str) -> BinaryIO:
        """Open a member."""
        return (self.files / name).open("rb")


def dump_to(root: Path, engine: Engine, source: Endpoint, **options: Any) -> Dumped:
    """Dump `source` into a folder below `root`."""
    folder = Folder(root)
    folder.files.mkdir(parents=True)
    sink = SpoolSink(folder, Progress("dump"))
    begun = datetime.now(UTC)
    dump = engine.dump(source, sink, engine.options(options))
    ref = BackupRef.of(set_id(at=begun, run=str(root)), Component.DATABASE, "source")
    manifest = Manifest(
        backup_id=ref.backup_id,
        set_id=set_id(at=begun, run=str(root)),
        component=ref.component,
        source=ref.source,
        engine=engine.kind,
        attempt="a1b2c3d4",
        stages=(),
        dump=dump,
        members=tuple(
            Member(name=one.name, plain=one.plain, stored=one.current) for one in sink.members
        ),
        started_at=begun,
        finished_at=datetime.now(UTC),
        product="test",
    )
    return Dumped(Manifest.model_validate_json(manifest.model_dump_json()), folder.files)


def restore_all(
    engine: Engine, backup: Restorable, target: Endpoint, *, replace: bool = False
) -> Sequence[str]:
    """Restore with every step that whoever drives a restore takes; return all notes."""
    place = RestoreTarget(target, replace=replace)
    notes = [*engine.preflight(backup, place), *engine.load(backup, place)]
    assert list(engine.compare(backup, place)) == []
    notes += engine.publish(backup, place)
    assert list(engine.compare(backup, place)) == []
    return notes
