"""A runtime over files of this machine: two local stores, sources of the engines of the tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from neuroca_backup.catalog.memory import MemoryCatalog
from neuroca_backup.connections import FileConnections
from neuroca_backup.model.identity import BackupRef, set_id
from neuroca_backup.model.tickets import Ticket
from neuroca_backup.runtime import Runtime
from neuroca_backup.services.backup import BackupType
from neuroca_backup.services.inventory import Inventory, Listed
from neuroca_backup.settings import Settings
from support.wiring import local_places

_runs = count()


@dataclass
class FilesBench:
    """Below `root`: `etc` (source `configuration`, one tree), `models` (source `models`, parts)."""

    root: Path
    mode: str = "staged"
    more: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.etc.mkdir()
        self.models.mkdir()
        self.places = local_places(self.root)
        self.runtime = self.fresh()

    @property
    def etc(self) -> Path:
        return self.root / "etc"

    @property
    def models(self) -> Path:
        return self.root / "models"

    def document(self) -> dict[str, Any]:
        """Return what stands below `backup` in backup.yaml."""
        return {
            "schedule": {"configuration": "0 1 * * 0", "model_weights": "0 4 * * 0"},
            "storage": self.places.storage,
            "retention": {},
            "encryption": self.places.encryption,
            "pipeline": {"spool": str(self.root / "spool"), "mode": self.mode},
            "compression": {"level": 1, "threads": 1},
            "sources": {
                "configuration": {
                    "component": "configuration",
                    "engine": "plain_files",
                    "options": {"root": str(self.etc)},
                },
                "models": {
                    "component": "model_weights",
                    "engine": "pieces",
                    "options": {"root": str(self.models)},
                },
            },
            **self.more,
        }

    def write_yaml(self) -> Path:
        """Write backup.yaml and return its path."""
        path = self.root / "backup.yaml"
        path.write_text(yaml.safe_dump({"backup": self.document()}))
        return path

    def fresh(self) -> Runtime:
        """Return a runtime of the settings as they are now."""
        runtime = Runtime.build(
            Settings.model_validate(self.document()), FileConnections(environ={})
        )
        runtime.__dict__["catalog"] = MemoryCatalog()
        return runtime

    def ref(self, source: str, *, age: timedelta = timedelta()) -> BackupRef:
        """Return the backup of a run of its own."""
        # Ids sort by the second, and what is compared with the newest must come after it.
        at = datetime.now(UTC) - age + timedelta(seconds=next(_runs) % 300)
        return self.runtime.ref(set_id(at=at, run=f"run {next(_runs)}"), source)

    def back_up(
        self,
        source: str = "configuration",
        *,
        ref: BackupRef | None = None,
        backup_type: BackupType = BackupType.AUTO,
        verify: bool = True,
    ) -> Ticket:
        """Make a backup, or find that an earlier one stands; verify a new one."""
        chosen = ref or self.ref(source)
        ticket = self.runtime.backups.run(chosen, mode=self.mode, backup_type=backup_type)
        if verify and not ticket.unchanged:
            self.runtime.verifier.verify(chosen)
        return ticket

    def listed(self, source: str = "configuration") -> list[Listed]:
        """Return the backups of `source`, newest first, as the stores show them."""
        inventory = Inventory(self.runtime.stores)
        return list(inventory.newest_first(self.runtime.component(source), source))
