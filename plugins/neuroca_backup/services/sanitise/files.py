"""A restored directory: there are no rules for files, but they can be read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from neuroca_backup.errors import ConfigurationError
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.services.sanitise.copies import Change
from neuroca_backup.services.sanitise.evidence import Evidence
from neuroca_backup.services.sanitise.masking import Masker
from neuroca_backup.settings import RuleSettings

_PIECE = 1 << 20


@contextmanager
def opened(endpoint: Endpoint) -> Iterator[Files]:
    """Open the copy in the directory of `endpoint`."""
    yield Files(endpoint.directory or Path("/nonexistent"))


@dataclass(frozen=True, slots=True)
class Files:
    """See `neuroca_backup.services.sanitise.copies.Copy`."""

    root: Path

    def check(self, rules: Sequence[RuleSettings]) -> Sequence[RuleSettings]:
        """Refuse any rule."""
        for rule in rules:
            raise ConfigurationError(
                f"{rule.place}: files cannot be sanitised",
                remedy="Remove that rule of `sanitise`. A copy of files is not kept.",
                value=rule.place,
            )
        return ()

    def capture(self, rules: Sequence[RuleSettings], evidence: Evidence) -> None:
        """Do nothing."""

    def apply(self, rules: Sequence[RuleSettings], masker: Masker) -> Sequence[Change]:
        """Change nothing."""
        del rules, masker
        return ()

    def pieces(self, *, most: int | None = None) -> Iterator[bytes]:
        """Yield the beginning of each file."""
        files = (path for path in self.root.rglob("*") if path.is_file() and not path.is_symlink())
        for path in islice(files, most):
            with path.open("rb") as file:
                yield file.read(_PIECE)
