"""What the demo proves, from Airflow, the manifests and the seed; and the table that shows it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from neuroca_backup.connections import FileConnections
from neuroca_backup.demo.airflow_api import AirflowApi, TaskRun
from neuroca_backup.demo.following import FinishedRun
from neuroca_backup.demo.place import Place
from neuroca_backup.demo.sources import SOURCES, Counts, DemoSource
from neuroca_backup.errors import ComparisonError, NotFoundError
from neuroca_backup.model.identity import BackupRef, Component, is_part_of
from neuroca_backup.model.manifest import Manifest

if TYPE_CHECKING:
    from neuroca_backup.model.backup_set import BackupSet
    from neuroca_backup.runtime import Runtime
    from neuroca_backup.services.inventory import Listed

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Evidence:
    """One source, backed up, and restored where it is a database. Bytes, and seconds.

    `to_upload` is from the beginning of the dump to the end of the upload, Airflow's own time
    between the tasks included, None where nothing had changed; `to_restore` is the same from plan
    to publish, None where nothing was restored. The backup holds `count` things of the kind `noun`.
    """

    source: str
    plain_size: int
    stored_size: int
    to_upload: float | None
    levels: Mapping[str, str]
    to_restore: float | None
    count: int
    noun: str


@dataclass(frozen=True, slots=True)
class SetEvidence:
    """The set of the databases, its skew in seconds, and one evidence a source of all sets."""

    set_id: str
    skew_seconds: float
    sources: Sequence[Evidence]


def gather(
    api: AirflowApi,
    place: Place,
    environment: Mapping[str, str],
    *,
    backups: Mapping[Component, FinishedRun],
    restore: FinishedRun,
    seeded: Mapping[str, Counts],
) -> SetEvidence:
    """Return the evidence of every source of the demo.

    A restore's task `compare` has found what was restored equal to the manifest's; here the
    manifest's must be what was seeded, name by name.

    Raises:
        ComparisonError: Another backup was restored, or something is not as it was seeded.
    """
    from neuroca_backup.runtime import Runtime  # noqa: PLC0415 - loads every client library
    from neuroca_backup.settings import load  # noqa: PLC0415 - as above

    runtime = Runtime.build(load(place.settings), FileConnections(environ=environment))
    recorded = {
        component: runtime.sets().find(
            api.result(run.dag_id, run.run_id, "set")["set_id"], components=[component]
        )
        for component, run in backups.items()
    }
    orders = api.result(restore.dag_id, restore.run_id, "plan")
    restored = {order["source"]: (index, order["plan"]) for index, order in enumerate(orders)}
    found = []
    for source in SOURCES:
        held = _held(runtime, recorded[source.component], source)
        to_restore = None
        if source.component is Component.DATABASE:
            index, plan = restored.get(source.name, (-1, None))
            _require_restored(source.name, plan, held)
            to_restore = _between(restore, ["plan"], [f"source.publish[{index}]"])
        run = backups[source.component]
        found.append(
            Evidence(
                source=source.name,
                plain_size=sum(manifest.plain_size for manifest, _ in held),
                stored_size=sum(manifest.stored_size for manifest, _ in held),
                to_upload=_between(run, _tasks(run, source, "dump"), _tasks(run, source, "upload")),
                levels=_levels(held),
                to_restore=to_restore,
                count=as_seeded(
                    source, [manifest for manifest, _ in held], seeded.get(source.seeded)
                ),
                noun=source.noun,
            )
        )
    databases = recorded[Component.DATABASE]
    return SetEvidence(
        set_id=databases.set_id, skew_seconds=databases.skew_seconds or 0, sources=found
    )


def as_seeded(source: DemoSource, manifests: Sequence[Manifest], seeded: Counts | None) -> int:
    """Return how many things the backups hold; they must be those that were seeded.

    None for `seeded` is for what is different each time.

    Raises:
        ComparisonError: They are not; shows both.
    """
    counts = {name: n for one in manifests for name, n in source.counts(one).items()}
    if seeded is not None and counts != dict(seeded):
        raise ComparisonError(
            f"Backed up {source.noun} of {source.name} are {counts}, seeded were {dict(seeded)}",
            remedy="If somebody else changes data in this demo, run it again; else it is a fault.",
        )
    return sum(counts.values())


def table(evidence: SetEvidence) -> Table:
    """Return the table that ends the demo, a row a source; it fits into 80 columns."""
    shown = Table(
        title=f"Backup set {evidence.set_id}: its sources are at most "
        f"{evidence.skew_seconds:.1f} s apart",
        caption=f"Verified in {', '.join(evidence.sources[0].levels)}. Times are Airflow's, from "
        "the first task's start to the last one's end. The databases were restored together.",
        box=None,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        header_style="bold",
        title_justify="left",
        caption_justify="left",
    )
    shown.add_column("\nsource")
    for header in ("dumped\nMiB", "stored\nMiB", "dump to\nupload"):
        shown.add_column(header, justify="right")
    shown.add_column("\nverified")
    shown.add_column("restored\nin", justify="right")
    shown.add_column("held,\nas seeded", justify="right")
    for one in evidence.sources:
        shown.add_row(
            one.source,
            f"{one.plain_size / _MIB:.1f}",
            f"{one.stored_size / _MIB:.1f}",
            "unchanged" if one.to_upload is None else f"{one.to_upload:.1f} s",
            ", ".join(one.levels.values()),
            "-" if one.to_restore is None else f"{one.to_restore:.1f} s",
            f"{one.count:,} {one.noun}",
        )
    return shown


def _held(
    runtime: Runtime, recorded: BackupSet, source: DemoSource
) -> list[tuple[Manifest, Listed]]:
    """Return the backups of a source, or of its parts, in a set, as the stores show them."""
    from neuroca_backup.services.inventory import Inventory  # noqa: PLC0415 - as in `gather`

    inventory = Inventory(runtime.stores)
    found = []
    for name, member in recorded.members.items():
        if name != source.name and not is_part_of(name, source.name):
            continue
        ref = BackupRef(backup_id=member.backup_id, component=recorded.component)
        listed = inventory.look(ref)
        if listed.manifest is None:
            raise NotFoundError(
                f"No store has a readable manifest of {member.backup_id}",
                remedy="Run `make demo` again; if it stays, look at the upload task's log.",
                backup_id=member.backup_id,
            )
        found.append((listed.manifest, listed))
    if not found:
        raise NotFoundError(
            f"The set {recorded.set_id} has nothing of {source.name}",
            remedy="Run `make demo` again; if it stays, look at the task `set`.",
        )
    return found


def _levels(held: Sequence[tuple[Manifest, Listed]]) -> dict[str, str]:
    """Return by store how far every one of the backups is proven."""
    stores = list(held[0][1].verifications)
    return {
        store: min(listed.verifications[store].level for _, listed in held).name for store in stores
    }


def _require_restored(
    source: str, plan: Mapping[str, str] | None, held: Sequence[tuple[Manifest, Listed]]
) -> None:
    wanted = held[0][0].backup_id
    if plan is None or plan["backup_id"] != wanted:
        raise ComparisonError(
            f"The restore took {plan and plan['backup_id']} of {source}, not the new backup "
            f"{wanted}",
            remedy="If somebody else makes backups in this demo, run it again.",
        )


def _tasks(run: FinishedRun, source: DemoSource, stage: str) -> list[str]:
    """Return the places of a stage's tasks: one, or one a part."""
    wanted = (f"{source.name}.{stage}", f"{source.name}.part.{stage}")
    return [place for place, task in run.tasks.items() if task.task_id in wanted]


def _between(run: FinishedRun, first: Sequence[str], last: Sequence[str]) -> float | None:
    """Return the seconds from the first start to the last end; None where the last were skipped."""
    begun = [task.started for task in _of(run, first) if task.started is not None]
    ended = [task.ended for task in _of(run, last) if task.ended is not None]
    if not begun or not ended:
        return None
    return (max(ended) - min(begun)).total_seconds()


def _of(run: FinishedRun, places: Sequence[str]) -> Iterator[TaskRun]:
    """Yield the tasks that have done their work."""
    for place in places:
        if run.tasks[place].state == "success":
            yield run.tasks[place]


def reports(place: Place, environment: Mapping[str, str], recovery_id: str) -> Iterator[Path]:
    """Copy the plan and the report of a recovery from the stores, and yield where each is."""
    from neuroca_backup.runtime import Runtime  # noqa: PLC0415 - loads every client library
    from neuroca_backup.settings import load  # noqa: PLC0415 - as above

    runtime = Runtime.build(load(place.settings), FileConnections(environ=environment))
    journal = runtime.journal(recovery_id)
    folder = place.root / "reports" / recovery_id
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in ("plan.md", "report.html", "report.md", "report.json"):
        try:
            data = journal.attachment(name)
        except NotFoundError:
            continue
        (folder / name).write_bytes(data)
        yield folder / name
