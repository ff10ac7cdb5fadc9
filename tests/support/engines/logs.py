"""Logs: a folder of files that are written to, restored to another folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from neuroca_backup.model.endpoint import Endpoint
from support.engines import Adapter


class Logs:
    """Two logs with numbered lines; what is added goes to the end of one."""

    def __init__(self, root: Path) -> None:
        self.source = Endpoint.this_machine()
        self._logs = root / "logs"
        self._restored = root / "restored"
        self._written = 0
        (self._logs / "audit").mkdir(parents=True)
        (self._logs / "latest").symlink_to("app.log")
        self.target = Endpoint.this_machine(self._restored)
        self.options = {
            "application": [str(self._logs)],
            "audit": [f"{self._logs}/audit/*.log", {"path": "/nonexistent/x", "optional": True}],
        }
        self.add(150)
        (self._logs / "audit/audit.log").write_text("".join(map(_line, range(50))))

    def add(self, count: int) -> None:
        with (self._logs / "app.log").open("a") as file:
            file.writelines(map(_line, range(self._written, self._written + count)))
        self._written += count

    def count(self, endpoint: Endpoint) -> int:
        root = self._logs if endpoint is self.source else self._place(self._logs)
        return sum(
            len(path.read_text().splitlines())
            for path in root.rglob("*.log")
            if not path.is_symlink()
        )

    def harm(self, endpoint: Endpoint) -> None:  # noqa: ARG002 - there is one target
        path = self._place(self._logs / "app.log")
        path.write_text(path.read_text().replace("line 7 ", "line 8 "))

    def fingerprint(self) -> object:
        return sorted((path, path.lstat().st_mtime_ns) for path in self._restored.parent.rglob("*"))

    def structural_damage(self, files: Path) -> Iterator[tuple[str, Callable[[], None]]]:
        def changed(path: Path, change: Callable[[bytes], bytes]) -> tuple[str, Callable[[], None]]:
            data = path.read_bytes()
            return path.relative_to(files).as_posix(), lambda: _rewrite(path, change(data))

        for path in sorted(path for path in files.rglob("*") if path.is_file()):
            yield path.relative_to(files).as_posix(), path.unlink
            yield changed(path, lambda data: data[: len(data) // 2])
            yield changed(path, lambda data: data[:-20])
            yield changed(path, lambda data: data + b"\0")
            yield changed(path, lambda _: b"")
        archive, state = files / "content/00001.tar", files / "state.jsonl"
        yield changed(archive, lambda data: data.replace(b"line 7 ", b"line 8 "))
        yield changed(archive, lambda data: data.replace(b"pieces/", b"places/"))
        yield changed(archive, lambda data: data.replace(b"ustar", b"other"))
        yield changed(archive, _without_first_piece)
        yield changed(state, lambda data: data.replace(b"app.log", b"app.lag"))
        yield changed(state, lambda data: data.replace(b'"path":"', b'"path":"../'))
        yield changed(state, lambda data: b"".join(data.splitlines(keepends=True)[:-1]))
        yield changed(state, lambda data: b"[]\n" + data)

    def _place(self, path: Path) -> Path:
        return self._restored / path.relative_to("/")


def _line(number: int) -> str:
    return f"2026-11-23T02:00:00Z INFO line {number} {'memory ' * 12}\n"


def _rewrite(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _without_first_piece(data: bytes) -> bytes:
    size = int(data[124:135], 8)  # the field of a tar's header that has the size of what follows
    return data[512 + size + -size % 512 :]


@contextmanager
def adapter(request: pytest.FixtureRequest) -> Iterator[Adapter]:
    yield Logs(request.getfixturevalue("tmp_path") / "machine")
