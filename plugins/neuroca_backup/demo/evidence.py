"""What the demo proves, from Airflow, the manifests and the seed; and the table that shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from rich.table import Table

from neuroca_backup.connections import FileConnections
from neuroca_backup.demo.airflow_api import AirflowApi
from neuroca_backup.demo.following import FinishedRun
from neuroca_backup.demo.place import Place
from neuroca_backup.demo.sources import SOURCES, Counts, DemoSource
from neuroca_backup.errors import ComparisonError, NotFoundError
from neuroca_backup.model.identity import BackupRef, Component
from neuroca_backup.model.manifest import Manifest

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Evidence:
    """One source, backed up and restored. Sizes in bytes, times in seconds.

    `to_upload` is from the beginning of the dump to the end of the upload, Airflow's own time
    between the tasks included; `to_restore` is the same from plan to publish. `restored` things
    of the kind `noun` came back, as many as were seeded.
    """

    source: str
    backup_id: str
    plain_size: int
    stored_size: int
    to_upload: float
    levels: Mapping[str, str]
    to_restore: float
    restored: int
    noun: str

    @property
    def ratio(self) -> float:
        """How many times smaller the backup is than what was dumped."""
        return self.plain_size / self.stored_size


@dataclass(frozen=True, slots=True)
class SetEvidence:
    """The whole set: one evidence a source, and how far apart their moments are, in seconds."""

    set_id: str
    skew_seconds: float
    sources: Sequence[Evidence]


def gather(
    api: AirflowApi,
    place: Place,
    environment: Mapping[str, str],
    *,
    backup: FinishedRun,
    restore: FinishedRun,
    seeded: Mapping[str, Counts],
) -> SetEvidence:
    """Return the evidence of every source of the demo.

    A restore's task `compare` has found what was restored equal to the manifest's; here the
    manifest's must be what was seeded, name by name.

    Raises:
        ComparisonError: Another backup was restored, or something is not as it was seeded.
    """
    recorded = api.result(backup.dag_id, backup.run_id, "set")
    orders = api.result(restore.dag_id, restore.run_id, "plan")
    restored = {order["source"]: (index, order["plan"]) for index, order in enumerate(orders)}
    found = []
    for source in SOURCES:
        verified = api.result(backup.dag_id, backup.run_id, f"{source.name}.verify")
        index, plan = restored.get(source.name, (-1, None))
        if plan is None or plan["backup_id"] != verified["backup_id"]:
            raise ComparisonError(
                f"The restore took {plan and plan['backup_id']} of {source.name}, not the new "
                f"backup {verified['backup_id']}",
                remedy="If somebody else makes backups in this demo, run it again.",
            )
        manifest = _manifest(place, environment, backup_id=verified["backup_id"])
        found.append(
            Evidence(
                source=source.name,
                backup_id=manifest.backup_id,
                plain_size=manifest.plain_size,
                stored_size=manifest.stored_size,
                to_upload=_between(backup, f"{source.name}.dump", f"{source.name}.upload"),
                levels=verified["levels"],
                to_restore=_between(restore, "plan", f"source.publish[{index}]"),
                restored=as_seeded(source, manifest, seeded[source.seeded]),
                noun=source.noun,
            )
        )
    return SetEvidence(
        set_id=recorded["set_id"], skew_seconds=recorded["skew_seconds"], sources=found
    )


def as_seeded(source: DemoSource, manifest: Manifest, seeded: Counts) -> int:
    """Return how many things the backup holds; they must be those that were seeded.

    Raises:
        ComparisonError: They are not; shows both.
    """
    counts = dict(source.counts(manifest))
    if counts != dict(seeded):
        raise ComparisonError(
            f"Restored {source.noun} of {source.name} are {counts}, seeded were {dict(seeded)}",
            remedy="If somebody else changes data in this demo, run it again; else it is a fault.",
        )
    return sum(counts.values())


def table(evidence: SetEvidence) -> Table:
    """Return the table that ends the demo, a row a source; it fits into 80 columns."""
    shown = Table(
        title=f"Backup set {evidence.set_id}: its sources are at most "
        f"{evidence.skew_seconds:.1f} s apart",
        caption=f"Verified in {', '.join(evidence.sources[0].levels)}. Times are Airflow's, from "
        "the first task's start to the last one's end.",
        box=None,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        header_style="bold",
        title_justify="left",
        caption_justify="left",
    )
    shown.add_column("\nsource")
    for header in ("dumped\nMiB", "stored\nMiB", "\nratio", "dump to\nupload"):
        shown.add_column(header, justify="right")
    shown.add_column("\nverified")
    shown.add_column("restored\nin", justify="right")
    shown.add_column("back,\nas seeded", justify="right")
    for one in evidence.sources:
        shown.add_row(
            one.source,
            f"{one.plain_size / _MIB:.1f}",
            f"{one.stored_size / _MIB:.1f}",
            f"{one.ratio:.1f}",
            f"{one.to_upload:.1f} s",
            ", ".join(one.levels.values()),
            f"{one.to_restore:.1f} s",
            f"{one.restored:,} {one.noun}",
        )
    return shown


def _manifest(place: Place, environment: Mapping[str, str], *, backup_id: str) -> Manifest:
    """Return the manifest as the stores have it, read without Airflow."""
    from neuroca_backup.runtime import Runtime  # noqa: PLC0415 - loads every client library
    from neuroca_backup.services.inventory import Inventory  # noqa: PLC0415 - as above
    from neuroca_backup.settings import load  # noqa: PLC0415 - as above

    runtime = Runtime.build(load(place.settings), FileConnections(environ=environment))
    ref = BackupRef(backup_id=backup_id, component=Component.DATABASE)
    manifest = Inventory(runtime.stores).look(ref).manifest
    if manifest is None:
        raise NotFoundError(
            f"No store has a readable manifest of {backup_id}",
            remedy="Run `make demo` again; if it stays, look at the upload task's log.",
            backup_id=backup_id,
        )
    return manifest


def _between(run: FinishedRun, first: str, last: str) -> float:
    begun, ended = run.tasks[first].started, run.tasks[last].ended
    assert isinstance(begun, datetime)  # noqa: S101 - both tasks have succeeded
    assert isinstance(ended, datetime)  # noqa: S101 - as above
    return (ended - begun).total_seconds()
