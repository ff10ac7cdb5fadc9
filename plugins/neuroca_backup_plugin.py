"""The one file that Airflow's plugin loader reads; everything else below plugins/ is ignored."""

from __future__ import annotations

from neuroca_backup.plugin import NeurocaBackupPlugin

__all__ = ["NeurocaBackupPlugin"]
