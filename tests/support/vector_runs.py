"""A vector store's engine from dump to publish, without stores and stages in between."""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuroca_backup.engines import Restorable, RestoreTarget, named
from neuroca_backup.model.identity import BackupRef, Component, set_id
from neuroca_backup.model.manifest import Manifest, Member
from neuroca_backup.services.pipeline import SpoolSink
from neuroca_backup.services.progress import Progress
from neuroca_backup.spool import Folder

if TYPE_CHECKING:
    from neuroca_backup.engines import Engine
    from neuroca_backup.model.endpoint import Endpoint

_numbers = itertools.count()


def dumped(engine: Engine, source: Endpoint, root: Path, **options: Any) -> Restorable:
    """Dump a source below `root`, check the dump, and return it as a restore gets it."""
    folder = Folder(root / f"dump-{next(_numbers)}")
    folder.files.mkdir(parents=True)
    sink = SpoolSink(folder, Progress("dump"))
    begun = datetime.now(UTC)
    dump = engine.dump(source, sink, engine.options(options))
    of = set_id(at=begun, run=folder.path.name)
    ref = BackupRef.of(of, Component.DATABASE, "vector")
    manifest = Manifest(
        backup_id=ref.backup_id,
        set_id=of,
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
    manifest = Manifest.model_validate_json(manifest.model_dump_json())
    engine.check(manifest, lambda name: (folder.files / name).open("rb"))
    return Restorable(chain=(manifest,), folders=(folder.files,), work=root / "work")


def restore(
    engine: Engine, backup: Restorable, target: Endpoint, *, replace: bool = False
) -> Sequence[str]:
    """Restore in every step, as the service does; return all notes."""
    place = RestoreTarget(target, replace=replace)
    notes = [*engine.preflight(backup, place), *engine.load(backup, place)]
    assert list(engine.compare(backup, place)) == []
    return [*notes, *engine.publish(backup, place)]


def begin(step: str, kind: str, backup: Restorable, place: RestoreTarget) -> Any:
    """Begin one step of a restore in a process of its own, and return that."""
    # A forked one would have the doubles' threads' locks, but not the threads.
    process = multiprocessing.get_context("spawn").Process(
        target=_step, args=(step, kind, backup, place)
    )
    process.start()
    return process


def _step(step: str, kind: str, backup: Restorable, place: RestoreTarget) -> None:
    getattr(named(kind), step)(backup, place)


def killed(double: Any, process: Callable[[], Any], *, method: str, path: str) -> None:
    """Kill the process that `process` begins when `double` gets such a request."""
    from support.doubles.http_double import Fault  # noqa: PLC0415 - beside its only use

    begun: list[Any] = []

    def kill() -> None:
        begun[0].kill()

    # The request that it dies of is not carried out.
    double.faults.append(Fault(method, path, skip=1, seconds=0.2, status=503, then=kill))
    begun.append(process())
    begun[0].join(30)
    assert begun[0].exitcode == -9
