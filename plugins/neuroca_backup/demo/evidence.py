"""What the demo proves, from Airflow, the manifest and the seed; and the table that shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from rich.box import SIMPLE_HEAD
from rich.table import Table

from neuroca_backup.connections import FileConnections
from neuroca_backup.demo.airflow_api import AirflowApi
from neuroca_backup.demo.following import FinishedRun
from neuroca_backup.demo.place import Place
from neuroca_backup.errors import ComparisonError, NotFoundError
from neuroca_backup.model.identity import BackupRef, Component
from neuroca_backup.model.manifest import Manifest

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Evidence:
    """One source, backed up and restored. Sizes in bytes, times in seconds.

    `to_upload` is from the beginning of the dump to the end of the upload, Airflow's own time
    between the tasks included; `to_restore` is the same from plan to publish.
    """

    source: str
    backup_id: str
    plain_size: int
    stored_size: int
    to_upload: float
    levels: Mapping[str, str]
    to_restore: float
    rows: int

    @property
    def ratio(self) -> float:
        """How many times smaller the backup is than what was dumped."""
        return self.plain_size / self.stored_size

    @property
    def mib_per_second(self) -> float:
        """Dumped bytes over the time until they were in the primary store."""
        return self.plain_size / _MIB / self.to_upload


def gather(
    api: AirflowApi,
    place: Place,
    environment: Mapping[str, str],
    *,
    backup: FinishedRun,
    restore: FinishedRun,
    seeded: Mapping[str, int],
) -> Evidence:
    """Return the evidence of the source `postgres`.

    The restore's task `compare` has found the restored rows equal to the manifest's, table by
    table; here the manifest's must be the seeded ones.

    Raises:
        ComparisonError: Another backup was restored, or a table's rows are not those seeded.
    """
    verified = api.result(backup.dag_id, backup.run_id, "postgres.verify")
    plan = api.result(restore.dag_id, restore.run_id, "plan")["plan"]
    if plan["backup_id"] != verified["backup_id"]:
        raise ComparisonError(
            f"The restore took {plan['backup_id']}, not the new backup {verified['backup_id']}",
            remedy="If somebody else makes backups in this demo, run it again.",
        )
    manifest = _manifest(place, environment, backup_id=verified["backup_id"])
    rows = restored_rows(manifest)
    if rows != dict(seeded):
        raise ComparisonError(
            f"Restored rows by table are {rows}, seeded were {dict(seeded)}",
            remedy="If somebody else changes data in this demo, run it again; else it is a fault.",
        )
    return Evidence(
        source="postgres",
        backup_id=manifest.backup_id,
        plain_size=manifest.plain_size,
        stored_size=manifest.stored_size,
        to_upload=_between(backup, "postgres.dump", "postgres.upload"),
        levels=verified["levels"],
        to_restore=_between(restore, "plan", "publish"),
        rows=sum(rows.values()),
    )


def restored_rows(manifest: Manifest) -> dict[str, int]:
    """Return the rows of every `database.schema.table` of a PostgreSQL backup."""
    databases = manifest.dump.facts["databases"]
    return {
        f"{database}.{table}": found["rows"]
        for database, facts in databases.items()
        for table, found in facts["tables"].items()
    }


def table(evidence: Evidence) -> Table:
    """Return the table that ends the demo: a column a source, so that it fits into 80."""
    shown = Table("", evidence.source, title=f"Backup {evidence.backup_id}", box=SIMPLE_HEAD)
    speed = f"{evidence.to_upload:.1f} s, {evidence.mib_per_second:.1f} MiB/s"
    shown.add_row("dumped", f"{evidence.plain_size / _MIB:.1f} MiB")
    shown.add_row("stored", f"{evidence.stored_size / _MIB:.1f} MiB")
    shown.add_row("ratio", f"{evidence.ratio:.1f}")
    shown.add_row("dump to upload", speed)
    for store, level in evidence.levels.items():
        shown.add_row(f"verified in {store}", level)
    shown.add_row("restored in", f"{evidence.to_restore:.1f} s")
    shown.add_row("rows restored", f"{evidence.rows:,}, as seeded")
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
