"""Models: one of 200 numbered files and a large one of weights, restored below a directory."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuroca_backup.model.endpoint import Endpoint
from support import model_files
from support.engines import Adapter

if TYPE_CHECKING:
    import pytest

_LARGE_BYTES = 8 * 1024 * 1024 + 1


class Models:
    """Numbered files of the model `gemma`; the model `tiny.gguf` is a single file."""

    def __init__(self, root: Path) -> None:
        self._models = root / "models"
        self._restored = root / "restored"
        self.source = Endpoint.this_machine()
        self.target = Endpoint.this_machine(self._restored)
        self.options: dict[str, Any] = {"roots": [str(self._models)]}
        (self._models / "gemma" / "runs").mkdir(parents=True)
        large = model_files.safetensors(weight=os.urandom(_LARGE_BYTES))
        (self._models / "gemma" / "model.safetensors").write_bytes(large)
        (self._models / "gemma" / "state.pt").write_bytes(model_files.torch_zip(step=b"7"))
        (self._models / "tiny.gguf").write_bytes(model_files.gguf(weight=b"abc"))
        self.add(200)

    def add(self, count: int) -> None:
        runs = self._models / "gemma" / "runs"
        already = len(list(runs.iterdir()))
        for number in range(already, already + count):
            (runs / f"{number:04}.json").write_text(f'{{"loss": {number}}}\n')

    def count(self, endpoint: Endpoint) -> int:
        return len(list((self._at(endpoint) / "gemma" / "runs").iterdir()))

    def harm(self, endpoint: Endpoint) -> None:
        path = self._at(endpoint) / "gemma" / "model.safetensors"
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)

    def fingerprint(self) -> object:
        return sorted((path, path.lstat().st_mtime_ns) for path in self._restored.rglob("*"))

    def structural_damage(self, files: Path) -> Iterator[tuple[str, Callable[[], None]]]:
        def changed(path: Path, change: Callable[[bytes], bytes]) -> tuple[str, Callable[[], None]]:
            data = path.read_bytes()
            assert change(data) != data
            return path.relative_to(files).as_posix(), lambda: _rewrite(path, change(data))

        index, tar = files / "index.jsonl", files / "tree.tar"
        (large,) = (path for path in files.rglob("model.safetensors"))
        for path in (index, tar, large):
            yield changed(path, lambda _: b"")
            yield changed(path, lambda data: data[: len(data) // 2])
            yield changed(path, lambda data: data[:-20])
            yield path.name, path.unlink
        yield changed(large, lambda data: data[:-1] + bytes([data[-1] ^ 1]))
        yield changed(large, lambda data: bytes(len(data)))
        yield changed(index, lambda data: b"".join(_without_members(data)))
        yield changed(tar, lambda data: data.replace(b'"loss": 7}', b'"loss": 8}'))
        yield changed(tar, lambda data: data.replace(b"GGUF", b"GGUG"))

    def _at(self, endpoint: Endpoint) -> Path:
        return endpoint.directory or self._models


def _without_members(index: bytes) -> list[bytes]:
    return [line for line in index.splitlines(keepends=True) if b'"member"' not in line]


def _rewrite(path: Path, data: bytes) -> None:
    path.write_bytes(data)


@contextmanager
def adapter(request: pytest.FixtureRequest) -> Iterator[Adapter]:
    root = Path(tempfile.mkdtemp(prefix="neuroca-models-"))
    try:
        yield Models(root)
    finally:
        shutil.rmtree(root)
