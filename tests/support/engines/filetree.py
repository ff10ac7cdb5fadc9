"""Files: a tree of 200 numbered files and one of everything else, restored below a directory."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuroca_backup.model.endpoint import Endpoint
from support.engines import Adapter

if TYPE_CHECKING:
    import pytest

_LARGE_BYTES = 8 * 1024 * 1024 + 1


class Files:
    """Numbered files below `items`; what else there is is not counted."""

    def __init__(self, root: Path) -> None:
        self._tree = root / "source"
        self._restored = root / "restored"
        self.source = Endpoint.this_machine()
        self.target = Endpoint.this_machine(self._restored)
        self.options: dict[str, Any] = {
            "environment": [str(self._tree / "environment"), str(self._tree / "*.env")],
            "security": [{"path": str(self._tree / "tls"), "optional": True}],
            "exclude": ["*.swp"],
        }
        items = self._tree / "environment" / "items"
        items.mkdir(parents=True)
        (self._tree / "app.env").write_text("MODE=production\n")
        (self._tree / "environment" / "large.bin").write_bytes(os.urandom(_LARGE_BYTES))
        (self._tree / "environment" / "link").symlink_to("items")
        self.add(200)

    def add(self, count: int) -> None:
        items = self._tree / "environment" / "items"
        already = len(list(items.iterdir()))
        for number in range(already, already + count):
            (items / f"{number:04}.yaml").write_text(f"number: {number}\n")
            (items / f"{number:04}.yaml").chmod(0o640)

    def count(self, endpoint: Endpoint) -> int:
        tree = self._tree
        if endpoint.directory is not None:
            tree = endpoint.directory / tree.relative_to("/")
        return len(list((tree / "environment" / "items").iterdir()))

    def harm(self, endpoint: Endpoint) -> None:
        assert endpoint.directory is not None
        tree = endpoint.directory / self._tree.relative_to("/")
        (tree / "environment" / "items" / "0007.yaml").write_text("number: 8\n")

    def fingerprint(self) -> object:
        return sorted((path, path.lstat().st_mtime_ns) for path in self._restored.rglob("*"))

    def structural_damage(self, files: Path) -> Iterator[tuple[str, Callable[[], None]]]:
        def changed(path: Path, change: Callable[[bytes], bytes]) -> tuple[str, Callable[[], None]]:
            data = path.read_bytes()
            assert change(data) != data
            return path.relative_to(files).as_posix(), lambda: _rewrite(path, change(data))

        index, tar = files / "index.jsonl", files / "tree.tar"
        (large,) = (path for path in files.rglob("large.bin"))
        for path in (index, tar, large):
            yield changed(path, lambda _: b"")
            yield changed(path, lambda data: data[: len(data) // 2])
            yield changed(path, lambda data: data[:-20])
        for path in (index, tar):
            yield path.name, path.unlink
        yield large.name, large.unlink
        yield changed(large, lambda data: data[:-1] + bytes([data[-1] ^ 1]))
        yield changed(index, lambda data: data[: data.rindex(b"\n", 0, -1) + 1])
        yield changed(tar, lambda data: data.replace(b"number: 7\n", b"number: 8\n"))
        yield changed(tar, lambda data: data.replace(b"0007.yaml", b"0008.yaml"))


def _rewrite(path: Path, data: bytes) -> None:
    path.write_bytes(data)


@contextmanager
def adapter(request: pytest.FixtureRequest) -> Iterator[Adapter]:
    root = Path(tempfile.mkdtemp(prefix="neuroca-files-"))
    try:
        yield Files(root)
    finally:
        shutil.rmtree(root)
