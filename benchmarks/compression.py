"""What does choosing the zstd level by a member's beginning bring, beside always the same level?

    python benchmarks/compression.py --megabytes 256

compresses random bytes, weights of a model (normally distributed, as fp16 and as bf16) and text
with the stage of the pipeline, and with the same library always at level 3, in turn in one run. The
best of the rounds counts; the ratio is to level 3.
"""

# ruff: noqa: INP001, T201 - a script, which prints its result

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import zstandard

from neuroca_backup.stages.compression import ZstdStage
from neuroca_backup.stages.transforming import FinishingWriter
from neuroca_backup.streams import CHUNK_BYTES

MEGABYTE = 1_000_000
LEVEL, THREADS = 3, 2


class Counting(FinishingWriter):
    """A sink that keeps nothing."""

    size = 0

    def _take(self, data: memoryview) -> None:
        self.size += len(data)

    def _finish(self) -> None:
        pass


def samples(size: int) -> Iterator[tuple[str, bytes]]:
    """Yield kinds of data by name, `size` bytes of each."""
    chance = np.random.default_rng(20261123)
    yield "random", chance.bytes(size)
    weights = chance.standard_normal(size // 2, dtype=np.float32) * np.float32(0.02)
    yield "fp16", weights.astype(np.float16).tobytes()
    yield "bf16", (weights.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    text = b"".join(path.read_bytes() for path in Path(np.__file__).parent.rglob("*.py"))
    yield "text", (text * (size // len(text) + 1))[:size]


def ours(data: memoryview) -> int:
    """Compress with the stage; return the bytes that come out."""
    sink = Counting()
    with ZstdStage(level=LEVEL, threads=THREADS).forward(sink, member="m") as writer:  # type: ignore[arg-type]
        for start in range(0, len(data), CHUNK_BYTES):
            writer.write(data[start : start + CHUNK_BYTES])
    return sink.size


def fixed(data: memoryview) -> int:
    """Compress always at the same level; return the bytes that come out."""
    compressor = zstandard.ZstdCompressor(level=LEVEL, threads=THREADS, write_checksum=True)
    chunker, size = compressor.chunker(chunk_size=CHUNK_BYTES), 0
    for start in range(0, len(data), CHUNK_BYTES):
        size += sum(len(chunk) for chunk in chunker.compress(data[start : start + CHUNK_BYTES]))
    return size + sum(len(chunk) for chunk in chunker.finish())  # type: ignore[no-untyped-call]


def main() -> None:
    """Measure every kind of data both ways, in turn."""
    parser = argparse.ArgumentParser(description="Compression beside a fixed level.")
    parser.add_argument("--megabytes", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    print(
        f"{'data':8} {'level 3, MB/s':>14} {'ours, MB/s':>12} {'times':>6} {'CPU':>6} {'size':>7}"
    )
    for name, data in samples(asked.megabytes * MEGABYTE):
        best: dict[Callable[[memoryview], int], tuple[float, float, int]] = {}
        for _ in range(asked.rounds):
            for way in (fixed, ours):
                began, worked = time.perf_counter(), time.process_time()
                size = way(memoryview(data))
                took = (time.perf_counter() - began, time.process_time() - worked, size)
                best[way] = min(best.get(way, took), took)
        before, after = best[fixed], best[ours]
        rate = len(data) / MEGABYTE
        print(
            f"{name:8} {rate / before[0]:14.0f} {rate / after[0]:12.0f} "
            f"{before[0] / after[0]:6.2f} {after[1] / before[1]:6.2f} {after[2] / before[2]:7.4f}"
        )


if __name__ == "__main__":
    main()
