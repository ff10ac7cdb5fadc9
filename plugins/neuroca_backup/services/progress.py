"""Progress of long work: a log line with percent, rate and remaining time every ten seconds."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

EVERY_SECONDS = 10.0


class Progress:
    """Counts bytes from any thread and logs how the work goes.

    `total` in bytes, where it is known, adds percent and remaining time.
    """

    def __init__(
        self, label: str, *, total: int | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.label = label
        self.total = total
        self.done = 0
        self._clock = clock
        self._started = clock()
        self._next_line = self._started + EVERY_SECONDS
        self._lock = threading.Lock()

    @property
    def seconds(self) -> float:
        """Seconds since the work began."""
        return self._clock() - self._started

    def add(self, count: int) -> None:
        """Note that `count` more bytes are done."""
        with self._lock:
            self.done += count
            now = self._clock()
            if now < self._next_line:
                return
            self._next_line = now + EVERY_SECONDS
        log.info("%s", str(self))  # now: a handler may format it later

    def __str__(self) -> str:
        rate = self.done / max(self.seconds, 1e-6)
        line = f"{self.label}: {self.done / 1e6:,.1f} MB at {rate / 1e6:,.1f} MB/s"
        if self.total:
            remaining = (self.total - self.done) / max(rate, 1.0)
            line += f", {100 * self.done / self.total:.0f} %, {remaining:,.0f} s remaining"
        return line
