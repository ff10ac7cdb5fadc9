"""Nothing that a component of Airflow prints shows a secret."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from dags.stand import REPOSITORY, airflow_environment

if TYPE_CHECKING:
    from pathlib import Path

_PROGRAM = """
import airflow.settings
airflow.settings.initialize()
import structlog
from airflow.sdk.log import mask_secret
mask_secret("opensesame-42")
structlog.get_logger("scheduler").warning("echo of a task log: opensesame-42", also="opensesame-42")
"""


def printed(home: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        env={**os.environ, **airflow_environment(home)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout + done.stderr


def test_what_a_component_prints_is_masked_by_our_local_settings(tmp_path: Path) -> None:
    unprotected = printed(tmp_path)
    (tmp_path / "config").mkdir(exist_ok=True)
    shutil.copy(REPOSITORY / "config" / "airflow_local_settings.py", tmp_path / "config")
    protected = printed(tmp_path)

    assert "opensesame-42" in unprotected, "Airflow masks by itself now: our settings may go"
    assert "echo of a task log: ***" in protected
    assert "opensesame-42" not in protected
