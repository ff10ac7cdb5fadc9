"""Files of this machine: configuration, by the paths and globs that backup.yaml lists."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO, ClassVar

from neuroca_backup.engines import (
    DIRECTORY,
    Answer,
    Difference,
    Engine,
    Parent,
    Restorable,
    RestoreTarget,
    Sink,
    checked_options,
)
from neuroca_backup.engines.filetree import dump, examine, listing, restore
from neuroca_backup.errors import ChainBrokenError
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.manifest import Dump, Manifest
from neuroca_backup.trees import archive, totals


class FiletreeEngine:
    """See `neuroca_backup.engines.Engine`."""

    kind: ClassVar[str] = "filetree"
    default_port: ClassVar[int] = 0
    sandbox: ClassVar[str] = DIRECTORY
    incremental: ClassVar[bool] = False
    keeps: ClassVar[bool] = True
    preview: ClassVar[tuple[str, ...]] = (archive.INDEX,)

    def options(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the options, checked and filled; that the paths exist is seen by the dump."""
        return checked_options(listing.Options, given, kind=self.kind).model_dump()

    def probe(self, endpoint: Endpoint) -> str:
        """Return the version of this machine's kernel, e.g. `6.1.0-28-amd64`."""
        return dump.system_version(endpoint)

    def dump(
        self,
        endpoint: Endpoint,
        sink: Sink,
        options: Mapping[str, Any],
        parent: Parent | None = None,
    ) -> Dump:
        """Write the index, the tar and the large files of everything that is listed."""
        if parent is not None:
            raise ChainBrokenError(
                "A filetree source takes full backups only", remedy="Take a full one."
            )
        return dump.dump(endpoint, sink, listing.Options.model_validate(options))

    def fingerprint(self, endpoint: Endpoint, options: Mapping[str, Any]) -> str:
        """Return the SHA-256 (hex) of all contents and metadata, but no times, as they are now."""
        return dump.fingerprint(endpoint, listing.Options.model_validate(options))

    def check(self, manifest: Manifest, open_member: Callable[[str], BinaryIO]) -> None:
        """Read every file, and compare the tar, the index and the manifest with each other."""
        archive.check(manifest, open_member)

    def summary(self, manifest: Manifest) -> str:
        """Return what the backup holds, e.g. `2 directories, 7 files, 4,711 bytes`."""
        return totals.said(manifest.dump.facts)

    def preflight(self, backup: Restorable, target: RestoreTarget) -> Sequence[str]:
        """Refuse places that cannot be replaced; say how many paths a restore changes."""
        return restore.preflight(backup, target)

    def load(self, backup: Restorable, target: RestoreTarget) -> Sequence[str]:
        """Make the tree beside its place."""
        return restore.load(backup, target)

    def compare(self, backup: Restorable, target: RestoreTarget) -> Sequence[Difference]:
        """Compare every path of the copy with the index, contents and metadata."""
        return restore.compare(backup, target)

    def publish(self, backup: Restorable, target: RestoreTarget) -> Sequence[str]:
        """Rename the copy into its place, keeping what was there beside it."""
        return restore.publish(backup, target)

    def examine(
        self, endpoint: Endpoint, facts: Mapping[str, Any], *, only: Sequence[str] = ()
    ) -> Sequence[Answer]:
        """Read every file as what its name says, and hold it to its schema; see the protocol."""
        return examine.examine(endpoint, facts, restore.selected(only, facts))


ENGINE: Engine = FiletreeEngine()
