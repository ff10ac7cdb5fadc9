"""A small engine for tests: the files of a folder, with a fingerprint. No product of this project.

`support.registering` makes it known. Failing on purpose: a file called `unreadable` cannot be read.
"""

from __future__ import annotations

import hashlib
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar

from neuroca_backup.engines import DIRECTORY, Difference
from neuroca_backup.errors import AccessDeniedError, ConfigurationError, NotFoundError
from neuroca_backup.model.manifest import Dump

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from neuroca_backup.engines import Parent, Restorable, RestoreTarget, Sink
    from neuroca_backup.model.endpoint import Endpoint
    from neuroca_backup.model.manifest import Manifest


class PlainFiles:
    """See `neuroca_backup.engines.Engine`."""

    kind: ClassVar[str] = "plain_files"
    default_port: ClassVar[int] = 0
    sandbox: ClassVar[str] = DIRECTORY
    incremental: ClassVar[bool] = False
    keeps: ClassVar[bool] = False

    def options(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        if not given.keys() <= {"root", "part"}:
            raise ConfigurationError("unknown options", remedy="root, part.", path="options")
        return dict(given)

    def probe(self, endpoint: Endpoint) -> str:
        assert endpoint.kind == "files"
        return "1"

    def dump(
        self,
        endpoint: Endpoint,
        sink: Sink,
        options: Mapping[str, Any],
        parent: Parent | None = None,
    ) -> Dump:
        assert parent is None
        for name, path in _files(options):
            with sink.member(f"files/{name}") as out:
                out.write(_content(path))
        return Dump(
            server_version=self.probe(endpoint),
            consistency={"time": datetime.now(UTC).isoformat()},
            facts={
                "files": {name: _digest(_content(path)) for name, path in _files(options)},
                "fingerprint": self.fingerprint(endpoint, options),
            },
        )

    def fingerprint(self, endpoint: Endpoint, options: Mapping[str, Any]) -> str:
        self.probe(endpoint)
        lines = [f"{name} {_digest(_content(path))}" for name, path in _files(options)]
        return _digest("\n".join(lines).encode())

    def check(self, manifest: Manifest, open_member: Callable[[str], BinaryIO]) -> None:
        for member in manifest.members:
            open_member(member.name).close()

    def summary(self, manifest: Manifest) -> str:
        return f"{len(manifest.members)} files"

    def preflight(self, backup: Restorable, target: RestoreTarget) -> Sequence[str]:
        assert target.endpoint.directory is not None
        return [self.summary(backup.last)]

    def load(self, backup: Restorable, target: RestoreTarget) -> Sequence[str]:
        place = _beside(target)
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(backup.folders[0] / "files", place)
        return []

    def compare(self, backup: Restorable, target: RestoreTarget) -> Sequence[Difference]:
        place = _beside(target)
        if not place.is_dir():
            place = Path(str(target.endpoint.directory))
        found = {
            path.relative_to(place).as_posix(): _digest(path.read_bytes())
            for path in place.rglob("*")
            if path.is_file()
        }
        expected = backup.last.dump.facts["files"]
        return [] if found == expected else [Difference("files", str(expected), str(found))]

    def publish(self, backup: Restorable, target: RestoreTarget) -> Sequence[str]:
        assert backup.last is not None
        place = _beside(target)
        if place.is_dir():
            place.rename(Path(str(target.endpoint.directory)))
        return []


def _files(options: Mapping[str, Any]) -> Iterator[tuple[str, Path]]:
    root = Path(options["root"], options.get("part", ""))
    if not root.is_dir():
        raise NotFoundError(f"{root} is not a directory", remedy="Make it.", path=str(root))
    for path in sorted(root.rglob("*")):
        if path.is_file():
            yield path.relative_to(root).as_posix(), path


def _content(path: Path) -> bytes:
    if path.name == "unreadable":
        raise AccessDeniedError(f"{path} may not be read", remedy="chmod it.", path=str(path))
    return path.read_bytes()


def _beside(target: RestoreTarget) -> Path:
    directory = Path(str(target.endpoint.directory))
    directory.parent.mkdir(parents=True, exist_ok=True)
    return directory.with_name(f"{directory.name}.restoring")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


ENGINE = PlainFiles()
