"""How long does a model take, the first time, unchanged, and back again; beside the runbook's tar?

    python benchmarks/models.py --megabytes 1000

writes a model of four shards of fp16 weights, and measures in one run: the runbook's `tar -czf`;
the first backup into two directories; its verification, which reads both; the second backup with
nothing changed, believing the files' status or reading them; and the restore. Every step of ours
has a process of its own, whose peak (the kernel's VmHWM) is told.
"""

# ruff: noqa: INP001, T201 - a script, which prints its result

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from neuroca_backup.connections import FileConnections
from neuroca_backup.engines import RestoreTarget
from neuroca_backup.keyring.local import LocalKeyFile
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.identity import set_id
from neuroca_backup.runtime import Runtime
from neuroca_backup.services.inventory import read_manifest
from neuroca_backup.settings import Settings
from neuroca_backup.stores.local import LocalStore

MEGABYTE = 1_000_000
SHARDS = 4
STORES = ("primary", "secondary")
SOURCE = "models__llama"


def prepare(root: Path, megabytes: int) -> None:
    """Write the model, the stores and the key."""
    for name in STORES:
        LocalStore(name, root / name).initialise()
    LocalKeyFile.generate(root / "local.key")
    home = root / "models" / "llama"
    home.mkdir(parents=True)
    chance = np.random.default_rng(20261123)
    size = megabytes * MEGABYTE // SHARDS // 2 * 2
    for number in range(SHARDS):
        described = {"dtype": "F16", "shape": [size // 2], "data_offsets": [0, size]}
        header = json.dumps({f"layer{number}": described}).encode()
        with (home / f"model-{number}.safetensors").open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            for start in range(0, size, 20 * MEGABYTE):
                count = min(20 * MEGABYTE, size - start) // 2
                values = chance.standard_normal(count, dtype=np.float32) * np.float32(0.02)
                file.write(values.astype(np.float16).tobytes())


def wired(root: Path, mode: str, trust: str) -> Runtime:
    """Return a runtime over the directories below `root`."""
    options = {"roots": [str(root / "models")], "trust": trust}
    settings = {
        "schedule": {"model_weights": "0 4 * * 0"},
        "storage": {name: {"type": "local", "path": str(root / name)} for name in STORES},
        "retention": {"model_weights": "180d"},
        "encryption": {"key_management": "local", "local_key_file": str(root / "local.key")},
        "pipeline": {"spool": str(root / "spool"), "mode": mode},
        "sources": {
            "models": {
                "component": "model_weights",
                "engine": "model_weights",
                "options": options,
            }
        },
    }
    return Runtime.build(Settings.model_validate(settings), FileConnections(environ={}))


def step(root: Path, word: str, mode: str, trust: str) -> dict[str, float]:
    """Do one step; return its seconds and the bytes that it stored in one store."""
    runtime = wired(root, mode, trust)
    begun, stored = time.monotonic(), 0
    if word == "back up":
        ref = runtime.ref(set_id(at=datetime.now(UTC), run=str(time.time())), SOURCE)
        runtime.backups.run(ref, mode=mode)
        stored = read_manifest(runtime.stores["primary"], ref).manifest.own_size
    elif word == "verify":
        runtime.verifier.verify(newest(runtime))
    else:
        target = RestoreTarget(Endpoint.this_machine(root / "restored"))
        ref = newest(runtime)
        plan = runtime.restores.plan(
            component=ref.component,
            source=SOURCE,
            restore_id="restore-benchmark",
            backup_id=ref.backup_id,
        )
        runtime.restores.preflight(plan, target)
        fetched = runtime.restores.fetch(plan)
        runtime.restores.load(plan, fetched, target)
        runtime.restores.compare(plan, target)
        runtime.restores.publish(plan, fetched, target)
        runtime.restores.clear(plan.restore_id)
        shutil.rmtree(root / "restored")
    return {"seconds": time.monotonic() - begun, "stored": stored}


def newest(runtime: Runtime):  # noqa: ANN201 - a BackupRef
    """Return the newest backup in the primary."""
    prefix = f"model_weights/{SOURCE}"
    ids = list(runtime.stores["primary"].folders(prefix))
    return runtime.ref(max(ids).removesuffix(f"-{SOURCE}"), SOURCE)


def measured(root: Path, *words: str) -> dict[str, float]:
    """Do a step in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--step", str(root), *words],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def runbook(root: Path) -> dict[str, float]:
    """Do as the runbook does: a compressed tar."""
    begun, output = time.monotonic(), root / "models.tar.gz"
    tar = shutil.which("tar") or "tar"
    subprocess.run([tar, "-czf", str(output), "-C", str(root), "models"], check=True)
    size = output.stat().st_size
    output.unlink()
    return {"seconds": time.monotonic() - begun, "stored": size}


def main() -> None:
    """Measure every step in turn."""
    parser = argparse.ArgumentParser(description="Backups of a model beside the runbook's tar.")
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--step", nargs=4, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.step:
        found = step(Path(asked.step[0]), *asked.step[1:])
        status = Path("/proc/self/status").read_text()
        peak = next(line for line in status.splitlines() if "VmHWM" in line)
        print(json.dumps({**found, "peak_mb": int(peak.split()[1]) / 1024}))
        return
    root = Path(tempfile.mkdtemp(prefix="neuroca-models-"))
    try:
        prepare(root, asked.megabytes)
        rows = [("tar -czf", runbook(root))]
        for mode in ("streamed", "staged"):
            shutil.rmtree(root / "spool", ignore_errors=True)
            rows.append((f"first, {mode}", measured(root, "back up", mode, "stat")))
            rows.append((f"verify, {mode}", measured(root, "verify", mode, "stat")))
            for trust in ("stat", "content"):
                again = measured(root, "back up", mode, trust)
                rows.append((f"unchanged, {mode}, trust {trust}", again))
            rows.append((f"restore, {mode}", measured(root, "restore", mode, "stat")))
            for name in STORES:
                shutil.rmtree(root / name / "model_weights")
        print(f"{'step':34} {'s':>7} {'MB/s':>7} {'stored MB':>10} {'peak MB':>8}")
        for name, found in rows:
            print(
                f"{name:34} {found['seconds']:7.1f} {asked.megabytes / found['seconds']:7.0f} "
                f"{found['stored'] / MEGABYTE:10.1f} {found.get('peak_mb', 0):8.0f}"
            )
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
