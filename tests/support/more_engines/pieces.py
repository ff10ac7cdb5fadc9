"""A small engine for tests: every folder in a folder is a part, backed up by itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from neuroca_backup.engines.plain_files import PlainFiles

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from neuroca_backup.model.endpoint import Endpoint


class Pieces(PlainFiles):
    """See `neuroca_backup.engines.Dividing`."""

    kind: ClassVar[str] = "pieces"

    def parts(self, endpoint: Endpoint, options: Mapping[str, Any]) -> Sequence[str]:
        self.probe(endpoint)
        return sorted(path.name for path in Path(options["root"]).iterdir() if path.is_dir())

    def part(self, options: Mapping[str, Any], name: str) -> Mapping[str, Any]:
        return {**options, "part": name}


ENGINE = Pieces()
