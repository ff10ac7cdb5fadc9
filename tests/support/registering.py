"""Makes the engines in `more_engines` known, as if they were a part of the product."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from neuroca_backup import engines

if TYPE_CHECKING:
    import pytest

MORE_ENGINES = Path(__file__).with_name("more_engines")


def register(monkeypatch: pytest.MonkeyPatch | None = None) -> None:
    """Let the registry, which is a folder, have a second one; with `monkeypatch` for one test."""
    path = [*engines.__path__, str(MORE_ENGINES)]
    if monkeypatch is None:
        engines.__path__ = path
    else:
        monkeypatch.setattr(engines, "__path__", path)
