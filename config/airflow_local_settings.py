# ruff: noqa: INP001 - Airflow imports it by name from its config folder
"""Airflow's local settings: what every component prints is masked like the task logs.

Airflow masks secrets in task log files, but LocalExecutor echoes the same lines to the
scheduler's stdout as they are. Airflow takes every public name of this module in place of its
own: https://airflow.apache.org/docs/apache-airflow/stable/howto/set-config.html
"""

from __future__ import annotations

import structlog
from airflow.logging_config import configure_logging as _airflows_own
from airflow.sdk.log import mask_logs

__all__ = ("configure_logging",)


def configure_logging() -> None:
    """Configure logging as Airflow does, then mask every line before it is written."""
    _airflows_own()  # type: ignore[no-untyped-call]  # Airflow's own has no types
    processors = list(structlog.get_config()["processors"])
    if mask_logs not in processors:
        structlog.configure(processors=[*processors[:-1], mask_logs, processors[-1]])
