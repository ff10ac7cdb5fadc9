"""Airflow's plugin loader imports by bare file name: what it must not touch, it does not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from dags.stand import REPOSITORY, airflow_environment

if TYPE_CHECKING:
    from pathlib import Path

_PROGRAM = """
import json, sys
from airflow import plugins_manager
plugins_manager.ensure_plugins_loaded()
folder = sys.argv[1]
print("FOUND " + json.dumps({
    "plugins": [plugin["name"] for plugin in plugins_manager.get_plugin_info()],
    "errors": plugins_manager.get_import_errors(),
    "bare": sorted(
        name for name, module in sys.modules.items()
        if str(getattr(module, "__file__", None)).startswith(folder) and "." not in name
    ),
}))
"""


def load_plugins(folder: Path, home: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(folder)],
        env={
            **os.environ,
            **airflow_environment(home),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(folder),
            "PYTHONPATH": str(folder),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout.split("FOUND ")[1])
    return found


def test_airflow_loads_the_plugin_and_nothing_else_of_the_plugins_folder(tmp_path: Path) -> None:
    found = load_plugins(REPOSITORY / "plugins", tmp_path)

    assert "neuroca_backup" in found["plugins"]
    assert found["errors"] == {}
    assert found["bare"] == ["neuroca_backup", "neuroca_backup_plugin"]


def test_a_module_of_ours_named_after_a_package_never_takes_its_place(tmp_path: Path) -> None:
    folder = tmp_path / "plugins"
    (folder / "neuroca_backup" / "stores").mkdir(parents=True)
    (folder / "neuroca_backup" / "stores" / "redis.py").write_text("")

    unprotected = load_plugins(folder, tmp_path)
    shutil.copy(REPOSITORY / "plugins" / ".airflowignore", folder)
    protected = load_plugins(folder, tmp_path)

    assert "redis" in unprotected["bare"], "the trap is gone: the ignore file may go, too"
    assert "redis" not in protected["bare"]
