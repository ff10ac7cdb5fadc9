"""MongoDB backups in folders, and their restores, without the services around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from neuroca_backup.engines import Parent, Restorable, RestoreTarget
from neuroca_backup.engines.mongodb import ENGINE
from neuroca_backup.model.identity import BackupRef, Component, set_id
from neuroca_backup.model.manifest import Manifest, Member
from neuroca_backup.services.pipeline import SpoolSink
from neuroca_backup.services.progress import Progress
from neuroca_backup.spool import Folder

if TYPE_CHECKING:
    from neuroca_backup.model.endpoint import Endpoint


@dataclass(frozen=True)
class Dumped:
    """A dump in a folder, as the spool would hold it."""

    manifest: Manifest
    files: Path

    def open(self, name: str) -> BinaryIO:
        """Open a member."""
        return (self.files / name).open("rb")


def take(
    source: Endpoint,
    root: Path,
    *,
    after: Sequence[Dumped] = (),
    sink: type[SpoolSink] = SpoolSink,
    **options: Any,
) -> Dumped:
    """Dump into `root`, check the dump's structure, and return it."""
    folder = Folder(root)
    folder.files.mkdir(parents=True)
    taken = sink(folder, Progress("dump"))
    begun = datetime.now(UTC)
    parent = Parent(manifest=after[-1].manifest, open=after[-1].open) if after else None
    dump = ENGINE.dump(source, taken, ENGINE.options(options), parent)
    of = set_id(at=begun, run=str(root))
    ref = BackupRef.of(of, Component.DATABASE, "source")
    manifest = Manifest(
        backup_id=ref.backup_id,
        set_id=of,
        component=ref.component,
        source=ref.source,
        engine=ENGINE.kind,
        attempt="a1b2c3d4",
        kind="incremental" if after else "full",
        parent=after[-1].manifest.backup_id if after else None,
        stages=(),
        dump=dump,
        members=tuple(
            Member(name=one.name, plain=one.plain, stored=one.current) for one in taken.members
        ),
        started_at=begun,
        finished_at=datetime.now(UTC),
        product="test",
    )
    made = Dumped(Manifest.model_validate_json(manifest.model_dump_json()), folder.files)
    ENGINE.check(made.manifest, made.open)
    return made


def restorable(
    chain: Sequence[Dumped], *, until: datetime | None = None, only: tuple[str, ...] = ()
) -> Restorable:
    """Return a chain as a restore gets it."""
    return Restorable(
        chain=tuple(one.manifest for one in chain),
        folders=tuple(one.files for one in chain),
        work=chain[0].files.parent / "work",
        until=until,
        only=only,
    )


def bring_back(backup: Restorable, endpoint: Endpoint, *, replace: bool = False) -> list[str]:
    """Restore with every step; the loaded copy must be what was backed up. Return the notes."""
    target = RestoreTarget(endpoint, replace=replace)
    notes = [*ENGINE.preflight(backup, target), *ENGINE.load(backup, target)]
    differences = [str(one) for one in ENGINE.compare(backup, target)]
    assert not differences, differences
    notes += ENGINE.publish(backup, target)
    differences = [str(one) for one in ENGINE.compare(backup, target)]
    assert not differences, differences
    assert list(ENGINE.publish(backup, target)) == []
    return notes
