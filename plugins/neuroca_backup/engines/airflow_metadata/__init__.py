"""Airflow's own configuration in its metadata database: connections, variables and pools."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from pydantic import BaseModel, ConfigDict

from neuroca_backup.engines import (
    Difference,
    Engine,
    Parent,
    Restorable,
    RestoreTarget,
    Sink,
    checked_options,
)
from neuroca_backup.engines.airflow_metadata import dump, restore, rows, tables
from neuroca_backup.errors import ChainBrokenError, ConfigurationError, DamagedError
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.manifest import Dump, Manifest


class Options(BaseModel):
    """`options` of a source of this engine.

    `fernet_key_file` is a private file that holds Airflow's `fernet_key`; without it the extra of
    the connection has the key, or the environment variable that Airflow itself reads.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    fernet_key_file: Path | None = None


class AirflowMetadataEngine:
    """See `neuroca_backup.engines.Engine`."""

    kind: ClassVar[str] = "airflow_metadata"
    default_port: ClassVar[int] = 5432
    sandbox: ClassVar[str] = "airflow_metadata"
    incremental: ClassVar[bool] = False
    keeps: ClassVar[bool] = False
    preview: ClassVar[tuple[str, ...]] = tables.MEMBERS

    def options(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the options, checked and filled.

        Raises:
            ConfigurationError: One is unknown, or the file's path is not absolute; whoever writes
                the key there does not read it in the message.
        """
        path = given.get("fernet_key_file")
        if path is not None and not Path(str(path)).is_absolute():
            raise ConfigurationError(
                "options.fernet_key_file of an airflow_metadata source is no absolute path",
                remedy="Write the path of a file that holds the key, from / on; never the key.",
                path="options.fernet_key_file",
            )
        return checked_options(Options, given, kind=self.kind).model_dump()

    def probe(self, endpoint: Endpoint) -> str:
        """Return PostgreSQL's version; raise where the database is not Airflow's."""
        return dump.server_version(endpoint)

    def dump(
        self,
        endpoint: Endpoint,
        sink: Sink,
        options: Mapping[str, Any],
        parent: Parent | None = None,
    ) -> Dump:
        """Write connections, variables and pools of one snapshot, their secrets decrypted."""
        if parent is not None:
            raise ChainBrokenError(
                "An airflow_metadata source takes full backups only", remedy="Take a full one."
            )
        return dump.dump(endpoint, sink, Options.model_validate(options).fernet_key_file)

    def fingerprint(self, endpoint: Endpoint, options: Mapping[str, Any]) -> str:
        """Return the SHA-256 (hex) of all rows as they are now, whatever key encrypts them."""
        return dump.fingerprint(endpoint, Options.model_validate(options).fernet_key_file)

    def check(self, manifest: Manifest, open_member: Callable[[str], BinaryIO]) -> None:
        """Read every row, and compare their number and digest with the manifest's."""
        names = {member.name for member in manifest.members}
        for name in sorted(names ^ set(tables.MEMBERS)):
            raise DamagedError(
                f"{name} should not be missing, or should not be there",
                remedy="Restore from another store, or an older backup.",
                key=name,
            )
        for table in tables.TABLES:
            rows.check(manifest.dump.facts["tables"][table.member], open_member, table)

    def summary(self, manifest: Manifest) -> str:
        """Return what the backup holds, e.g. `3 connections, 7 variables, 1 pools`."""
        facts = manifest.dump.facts["tables"]
        return ", ".join(
            f"{facts[table.member]['rows']:,} {table.word}s" for table in tables.TABLES
        )

    def preflight(self, backup: Restorable, target: RestoreTarget) -> Sequence[str]:
        """Refuse another layout, a wrong Fernet key, and rows that may not be replaced."""
        return restore.preflight(backup, target)

    def load(self, backup: Restorable, target: RestoreTarget) -> Sequence[str]:
        """Put the rows beside, in a schema of their own."""
        return restore.load(backup, target)

    def compare(self, backup: Restorable, target: RestoreTarget) -> Sequence[Difference]:
        """Decrypt every row again and compare it with what was backed up."""
        return restore.compare(backup, target)

    def publish(self, backup: Restorable, target: RestoreTarget) -> Sequence[str]:
        """Swap the rows in one transaction."""
        return restore.publish(backup, target)


ENGINE: Engine = AirflowMetadataEngine()
