"""What the demo prints while it works: one line a step, with the time since it began."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from neuroca_backup.errors import BackupError


class Screen:
    """Lines with the seconds since this was made; safe to use from several threads."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    def say(self, text: str, *, style: str = "") -> None:
        """Print one line."""
        self.console.print(
            f"{self.seconds:6.1f} s  {text}",
            style=style,
            markup=False,
            highlight=False,
            soft_wrap=True,
        )

    @contextmanager
    def step(self, what: str, *, log: Path) -> Iterator[None]:
        """Announce a step and its end; an error of it says which step it was and where to look."""
        self.say(f"{what} ...", style="dim")
        began = time.monotonic()
        try:
            yield
        except BackupError as error:
            error.add_note(f"It failed at: {what}. Logs: {log}")
            raise
        self.say(f"{what}: done in {time.monotonic() - began:.1f} s")
