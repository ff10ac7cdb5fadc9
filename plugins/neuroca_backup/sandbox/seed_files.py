"""NCA-shaped files: a configuration, three models, and logs that have been rotated.

The configuration and the models are the same for the same scale. The logs are not: each time they
are rotated, and grow, as a running system's do.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

KINDS = ("configuration", "models", "logs")

_MODELS = ("neuroca-embed", "neuroca-rank", "neuroca-summarise")
_TENSORS = ("embeddings.weight", "encoder.weight", "head.weight")
# Half-precision numbers of a scale of 1.0; three tensors a model make 3 MiB.
_NUMBERS = 512 * 1024
_ROTATED = 3  # how many old ones a log keeps
_LINES = 20_000

_CONFIGURATION = {
    "environment/neuroca.env": "NEUROCA_ENV=production\nPOSTGRES_DB=neuroca\n"
    "POSTGRES_PASSWORD=not-a-real-password\n",
    "parameters/backends/milvus.yaml": "milvus:\n  host: milvus\n  port: 19530\n  dimension: 768\n",
    "parameters/backends/redis.yaml": "redis:\n  host: redis\n  databases: [0, 1]\n",
    "parameters/memory.yaml": "working: {ttl_seconds: 3600}\nepisodic: {limit: 5000}\n",
    "integrations/prometheus.yml": "scrape_configs:\n  - job_name: neuroca\n    static_configs:\n"
    "      - targets: ['neuroca:9090']\n",
    "integrations/grafana/dashboard.json": '{"title": "NCA", "panels": []}\n',
    "security/policy.yaml": "tls: {minimum: '1.3'}\naudit: {keep_days: 90}\n",
}
_SECRET = ("environment/neuroca.env",)


def seed(root: Path, *, scale: float) -> None:
    """Fill `root` with a folder a kind; a folder that is there is brought to what it should be."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    for kind, fill in _FILLS.items():
        folder = root / kind
        folder.mkdir(mode=0o750, exist_ok=True)
        fill(folder, scale)


def counts() -> dict[str, dict[str, int]]:
    """Return how many files every kind has but the logs, by folder; see `seed`."""
    return {
        "configuration": {"files": len(_CONFIGURATION)},
        "models": dict.fromkeys(_MODELS, len(_model(0))),
    }


def _seed_configuration(folder: Path, scale: float) -> None:  # noqa: ARG001 - its size is its own
    for name, text in _CONFIGURATION.items():
        path = _made(folder / name)
        path.write_text(text)
        path.chmod(0o600 if name in _SECRET else 0o640)
    link = folder / "parameters" / "active"
    if not link.is_symlink():
        link.symlink_to("backends/milvus.yaml")


def _seed_models(folder: Path, scale: float) -> None:
    for number, name in enumerate(_MODELS):
        for file, content in _model(number, numbers=max(1, int(_NUMBERS * scale))).items():
            path = _made(folder / name / file)
            # What is there already is left alone: an unchanged model keeps its times.
            if not path.exists() or path.stat().st_size != len(content):
                path.write_bytes(content)


def _seed_logs(folder: Path, scale: float) -> None:
    now = datetime.now(UTC)
    lines = max(1, int(_LINES * scale))
    for name in ("application/neuroca.log", "audit/audit.log", "performance/latency.log"):
        path = _made(folder / name)
        _rotate(path)
        kind = name.partition("/")[0]
        with path.open("w", encoding="utf-8") as out:
            for number in range(lines):
                out.write(f"{now.isoformat()} INFO {kind} {number:07d} memory consolidated\n")
    metrics = _made(folder / "metrics" / "metrics.prom")
    with metrics.open("a", encoding="utf-8") as out:
        out.write(f"neuroca_memory_items {lines} {int(now.timestamp())}\n")


_FILLS: Mapping[str, Callable[[Path, float], None]] = {
    "configuration": _seed_configuration,
    "models": _seed_models,
    "logs": _seed_logs,
}


def _rotate(path: Path) -> None:
    """Do what logrotate does with a log: `x.log` becomes `x.log.1`, that `x.log.2`, and so on."""
    for number in range(_ROTATED - 1, -1, -1):
        older = path.with_name(f"{path.name}.{number}") if number else path
        if older.exists():
            older.replace(path.with_name(f"{path.name}.{number + 1}"))


def _model(number: int, *, numbers: int = 1) -> dict[str, bytes]:
    """Return the files of one model by name; the weights are as random as real ones."""
    chance = random.Random(number)  # noqa: S311 - the same every time is what is wanted
    config = {"architectures": ["NeurocaModel"], "hidden_size": 768, "torch_dtype": "float16"}
    tokens = {"version": "1.0", "model": {"type": "BPE", "vocab": {"neuro": 0, "ca": 1}}}
    return {
        "model.safetensors": _safetensors(chance, numbers),
        "config.json": json.dumps(config, indent=2).encode(),
        "tokenizer.json": json.dumps(tokens).encode(),
        "checkpoints/step-1000/optimizer.safetensors": _safetensors(chance, max(1, numbers // 8)),
        "training/arguments.json": json.dumps({"epochs": 3, "seed": number}).encode(),
    }


def _safetensors(chance: random.Random, numbers: int) -> bytes:
    """Return a safetensors file: the header's length, the header as JSON, then the numbers.

    The format: https://huggingface.co/docs/safetensors/index
    """
    size = 2 * numbers  # bytes; F16
    header = {
        name: {
            "dtype": "F16",
            "shape": [numbers],
            "data_offsets": [place * size, (place + 1) * size],
        }
        for place, name in enumerate(_TENSORS)
    }
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + chance.randbytes(size * len(_TENSORS))


def _made(path: Path) -> Path:
    path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    return path
