"""`neuroca-backup configure`: write a sample `backup.yaml`, or check the one that is there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from neuroca_backup import engines
from neuroca_backup.errors import AccessDeniedError, BackupError, ConfigurationError
from neuroca_backup.model.identity import Component
from neuroca_backup.services import sanitise, targets
from neuroca_backup.services.classification import review_due
from neuroca_backup.settings import Settings, load, sample_text, warnings
from neuroca_backup.settings.cron import next_run

_RUNS_SHOWN = 3
# Everybody may read it: it holds connection ids and key names, never a secret.
_SAMPLE_MODE = 0o644


@dataclass(frozen=True, slots=True)
class PlannedComponent:
    """What will run for one component; `next_runs` are the next three times, in UTC.

    `cron` is None and `next_runs` is empty where the component is not scheduled, `rpo` is None
    where it has no objective.
    """

    component: Component
    cron: str | None
    next_runs: tuple[datetime, ...]
    retention: timedelta
    rpo: timedelta | None
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ConfigureReport:
    """What was found at `path`, or `created` there, and what it means.

    `plan` has every component that is scheduled or has sources; `warnings` are sentences.
    """

    path: Path
    created: bool
    plan: tuple[PlannedComponent, ...]
    warnings: tuple[str, ...]


def configure(path: Path, *, now: datetime | None = None) -> ConfigureReport:
    """Write the commented sample at `path` where there is no file; report on what is there now.

    A file that exists is never changed. `now` (aware) is what the next runs are counted from.

    Raises:
        ConfigurationError: The file has mistakes, or the sample cannot be written.
        AccessDeniedError: This user may not write there.
    """
    # Unlike Path.exists this does not raise where a directory above may not be entered; the
    # attempt to write then says so.
    created = not os.access(path, os.F_OK) and _write_sample(path)
    settings = load(path)
    _check_options(settings, path)
    now = now or datetime.now(UTC)
    due = review_due(settings.classification.reviewed, now=now)
    return ConfigureReport(
        path=path,
        created=created,
        plan=tuple(_plan(settings, now=now)),
        warnings=(*warnings(settings), *([] if due is None else [due])),
    )


def _check_options(settings: Settings, path: Path) -> None:
    """Check what only a source's engine knows: its options, its connection, its rules' places."""
    for name in settings.sanitise:
        sanitise.require_fitting(settings, name)
    for name, source in settings.sources.items():
        try:
            engines.named(source.engine).options(source.options)
            targets.require_way(name, source)
        except ConfigurationError as error:
            place = f"backup.sources.{name}.{error.facts.get('path', 'options')}"
            raise ConfigurationError(
                f"{path}: {place}: {error.problem}",
                remedy=error.remedy,
                file=str(path),
                path=place,
                value=error.facts.get("value"),
            ) from None


def _plan(settings: Settings, *, now: datetime) -> Iterator[PlannedComponent]:
    for component in Component:
        cron = settings.schedule.of(component)
        sources = tuple(settings.sources_of(component))
        if cron is None and not sources:
            continue
        yield PlannedComponent(
            component=component,
            cron=cron,
            next_runs=() if cron is None else _next_runs(cron, now=now.astimezone(UTC)),
            retention=settings.retention.of(component),
            rpo=settings.objectives.rpo.of(component),
            sources=sources,
        )


def _next_runs(cron: str, *, now: datetime) -> tuple[datetime, ...]:
    runs: list[datetime] = []
    for _ in range(_RUNS_SHOWN):
        runs.append(next_run(cron, after=runs[-1] if runs else now))
    return tuple(runs)


def _write_sample(path: Path) -> bool:
    """Write the sample at `path`, whole or not at all; return False where a file came first."""
    text = sample_text()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fchmod(file.fileno(), _SAMPLE_MODE)
                os.fsync(file.fileno())
            # A rename would replace a file that another process has just written; a link fails.
            path.hardlink_to(name)
        finally:
            Path(name).unlink()
    except FileExistsError:
        return False
    except OSError as error:
        raise _unwritable(path, error) from None
    return True


def _unwritable(path: Path, error: OSError) -> BackupError:
    if isinstance(error, PermissionError):
        return AccessDeniedError(
            f"{path} cannot be written by user id {os.geteuid()}",
            remedy="Run this as root (`sudo neuroca-backup configure ...`), or name another path.",
            file=str(path),
        )
    return ConfigurationError(
        f"{path} cannot be written: {error.strerror}",
        remedy="Name a path on a writable disk; one that allows hard links.",
        file=str(path),
    )
