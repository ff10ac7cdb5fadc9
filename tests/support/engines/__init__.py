"""What the contract of the engines needs of each one's server; one module an engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from neuroca_backup.model.endpoint import Endpoint


class Adapter(Protocol):
    """What the suite needs of one engine's server; it holds 200 things to count at first."""

    source: Endpoint
    target: Endpoint
    options: Mapping[str, Any]

    def add(self, count: int) -> None:
        """Add things to the source."""

    def count(self, endpoint: Endpoint) -> int:
        """Count the things in the source or in the restored target."""

    def harm(self, endpoint: Endpoint) -> None:
        """Change one thing without changing how many there are."""

    def fingerprint(self) -> object:
        """Return what shows whether the target was touched."""

    def structural_damage(self, files: Path) -> Iterator[tuple[str, Callable[[], None]]]:
        """Yield ways to damage a dump that re-sealing would hide, each with the member it hits."""
