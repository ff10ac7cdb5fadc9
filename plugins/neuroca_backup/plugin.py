"""What this project adds to Airflow itself.

The scheduler loads it before it forks its workers, so it imports nothing heavy.
"""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin


class NeurocaBackupPlugin(AirflowPlugin):
    """Names the project in `airflow plugins`; operators need no registration."""

    name = "neuroca_backup"
