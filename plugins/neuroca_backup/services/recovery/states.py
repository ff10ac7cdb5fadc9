"""What has become of each source and each check of a recovery, from its events alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from neuroca_backup.model.recovery import Event, EventKind


class Stage(StrEnum):
    """How far a source has come."""

    WAITING = "waiting"
    RESTORING = "restoring"
    RESTORED = "restored"
    BACK = "back"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(slots=True)
class SourceState:
    """The events of one source that count.

    `started` is the newest; the others came after it. `check` is the newest check. A source that
    was told to be restored without a beginning has only the other events.
    """

    started: Event | None = None
    restored: Event | None = None
    failed: Event | None = None
    skipped: Event | None = None
    check: Event | None = None

    def add(self, event: Event) -> None:
        """Take the next event in time."""
        if event.kind is EventKind.STARTED:
            self.started, self.restored, self.failed, self.skipped = event, None, None, None
            self.check = None
        elif event.kind is EventKind.RESTORED:
            self.restored, self.failed, self.skipped = event, None, None
        elif event.kind is EventKind.FAILED:
            self.failed = event
        elif event.kind is EventKind.SKIPPED:
            self.skipped = event
        elif event.kind is EventKind.CHECKED:
            self.check = event

    @property
    def covered_by(self) -> str:
        """The source that brings this one back in its stead, or ""."""
        named = self.skipped.details.get("covered_by") if self.skipped is not None else None
        return named if isinstance(named, str) and self.restored is None else ""

    @property
    def stage(self) -> Stage:
        """How far it has come by itself; one that another source brings back is SKIPPED."""
        if self.failed is not None or (self.check is not None and not self.check.passed):
            return Stage.FAILED
        if self.restored is not None:
            return Stage.RESTORED if self.check is None else Stage.BACK
        if self.skipped is not None:
            return Stage.SKIPPED
        return Stage.WAITING if self.started is None else Stage.RESTORING

    @property
    def back_at(self) -> datetime | None:
        """Since when it is restored and checked; None while it is not."""
        if self.stage is not Stage.BACK or self.restored is None or self.check is None:
            return None
        return max(self.restored.at, self.check.at)


class States:
    """The states of all sources and checks that the events are about."""

    def __init__(self, events: Iterable[Event]) -> None:
        self._states: dict[str, SourceState] = {}
        self.ended: Event | None = None
        for event in sorted(events, key=lambda one: one.at):
            if event.kind is EventKind.ENDED:
                self.ended = event
            elif event.subject:
                self._states.setdefault(event.subject, SourceState()).add(event)

    def of(self, subject: str) -> SourceState:
        """Return the state of a source."""
        return self._states.get(subject) or SourceState()

    def back_at(self, source: str) -> datetime | None:
        """Return since when `source`, or what brings it back in its stead, is back; or None."""
        seen: set[str] = set()
        while source not in seen:
            seen.add(source)
            state = self.of(source)
            if not state.covered_by:
                return state.back_at
            source = state.covered_by
        return None

    def passed_at(self, check: str) -> datetime | None:
        """Return when the newest result of a check of the whole system came, if it passed."""
        newest = self.of(check).check
        return newest.at if newest is not None and newest.passed else None

    def left(self, source: str, *, now: datetime, forecasts: Mapping[str, float]) -> float | None:
        """Return how many seconds `source` will still take; None where nothing tells."""
        state = self.of(source)
        if self.back_at(source) is not None or state.covered_by:
            return 0.0
        if state.stage is Stage.RESTORED:
            return 0.0  # its check takes moments
        told = number(state.started, "forecast_seconds") if state.started else None
        whole = forecasts.get(source) if told is None else told
        if whole is None:
            return None
        if state.stage is Stage.RESTORING and state.started is not None:
            return max(whole - (now - state.started.at).total_seconds(), 0.0)
        return whole


def number(event: Event, detail: str) -> float | None:
    """Return a detail of an event that has to be a number; None where it is missing or none."""
    found = event.details.get(detail)
    return None if found is None or isinstance(found, bool | str) else float(found)
