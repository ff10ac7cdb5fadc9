"""The assets of this project: backups that were verified, and changes that call for one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import Asset, AssetWatcher

from neuroca_backup.model.identity import Component
from neuroca_backup.triggers.source_changed import SourceChangedTrigger

if TYPE_CHECKING:
    from neuroca_backup.settings import Settings, SourceSettings, WatchSettings

# Components whose backup is also started by a change of their content.
_WATCHED = frozenset({Component.CONFIGURATION})


def backup_asset(component: Component, source: str) -> Asset:
    """Return the asset that is updated whenever a backup of `source` has been verified."""
    # Without "x-" Airflow looks for the scheme in every provider: 0.4 s more for every task.
    return Asset(
        name=f"backup of {component}/{source}", uri=f"x-neuroca-backup://{component}/{source}"
    )


def change_asset(component: Component, source: str, watch: WatchSettings) -> Asset:
    """Return the asset that is updated whenever the content of `source` has changed."""
    trigger = SourceChangedTrigger(source=source, every=watch.every, settle=watch.settle)
    return Asset(
        name=f"change of {component}/{source}",
        uri=f"x-neuroca-change://{component}/{source}",
        watchers=[AssetWatcher(name=f"watch {source}", trigger=trigger)],
    )


def changes_of(component: Component, settings: Settings) -> list[Asset]:
    """Return the assets whose updates start a backup of `component`, one a watched source."""
    if component not in _WATCHED or not settings.watch.enabled:
        return []
    return [
        change_asset(component, name, settings.watch)
        for name, source in settings.sources_of(component).items()
        if _watchable(source)
    ]


def _watchable(source: SourceSettings) -> bool:
    """Return whether the source is files of this machine that have a fingerprint.

    Servers are not watched: nobody could log in to them every few seconds, and only engines of
    files cost a DAG file nothing to import.
    """
    from neuroca_backup import engines  # noqa: PLC0415 - where nothing is watched it costs nothing

    if source.connection is not None:
        return False
    engine = engines.named(source.engine)
    return isinstance(engine, engines.Fingerprinting) and not isinstance(engine, engines.Dividing)
