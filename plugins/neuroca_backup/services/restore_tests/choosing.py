"""What is tested: the newest complete set of each component, chosen sources, or one backup."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from neuroca_backup.errors import BackupError, ConfigurationError, NotFoundError, TargetRefusedError
from neuroca_backup.model.backup_set import BackupSet
from neuroca_backup.model.identity import (
    RESTORE_ORDER,
    BackupRef,
    Classification,
    Component,
    is_part_of,
    whole_source,
)
from neuroca_backup.services import sanitise
from neuroca_backup.services.addresses import resolve
from neuroca_backup.services.inventory import Inventory
from neuroca_backup.settings import Settings
from neuroca_backup.stores import Store

# Who looks at a copy has looked by then; the run of Airflow waits as long.
LONGEST_KEPT = timedelta(hours=72)
_SHOWN = (Classification.PUBLIC, Classification.INTERNAL)


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for; checked as a whole by `check`.

    `components` and `sources` are () for all; `backup` is an id or an address. `keep` is how long
    the sanitised sandbox stays.
    """

    components: tuple[Component, ...] = ()
    sources: tuple[str, ...] = ()
    backup: str = ""
    sandbox: str = "process"
    sanitise: bool = True
    keep: timedelta = timedelta()


@dataclass(frozen=True, slots=True)
class Choice:
    """One source to test: its backup, "" for the newest verified one, or why there is none.

    `prefer` is the store that was named with the backup.
    """

    component: Component
    source: str
    backup_id: str = ""
    problem: str = ""
    prefer: str | None = None
    notes: tuple[str, ...] = ()


def check(request: Request, settings: Settings) -> None:
    """Refuse what cannot be meant, or must not be done, before anything is touched.

    Raises:
        ConfigurationError: A field is impossible, or two contradict each other.
        TargetRefusedError: An unsanitised copy of what is not to be seen would be kept.
    """
    for source in request.sources:
        if settings.source(source) is None:
            raise ConfigurationError(
                f"source: {source!r} is not a choice",
                remedy=f"Use one of: {', '.join(settings.sources)}; or a part of one.",
                value=source,
            )
    given = [word for word in ("components", "sources", "backup") if getattr(request, word)]
    if len(given) > 1:
        raise ConfigurationError(
            f"{' and '.join(given)} are given together",
            remedy="Give one of them, or none for every component.",
            value=given,
        )
    if not timedelta() <= request.keep <= LONGEST_KEPT:
        hours = LONGEST_KEPT.total_seconds() / 3600
        raise ConfigurationError(
            f"keep: {request.keep.total_seconds() / 3600:g} hours is not from 0 to {hours:g}",
            remedy="Keep the sandbox for a shorter time, and run another test later.",
            value=request.keep.total_seconds() / 3600,
        )
    if request.sandbox == "connection" and not settings.restore_test.connections:
        raise ConfigurationError(
            "The sandbox is to be an isolated environment, and backup.yaml names none",
            remedy="Write the connection of each source below backup.restore_test.connections, or "
            "use a sandbox of the kind `process`.",
            path="backup.restore_test.connections",
        )
    for source in settings.sanitise:
        sanitise.require_fitting(settings, source)


def require_keepable(request: Request, settings: Settings, choices: Sequence[Choice]) -> None:
    """Raise `TargetRefusedError` where a copy would be kept in which somebody could see too much.

    What is classified as restricted has to have rules; what is confidential rules, or an empty
    list of them, with which somebody says that nothing in it is personal.
    """
    if not request.keep:
        return
    for choice in choices:
        source = settings.source(choice.source)
        rules = settings.sanitise.get(whole_source(choice.source))
        if source is not None and source.classification in _SHOWN:
            continue
        named = "unknown" if source is None else source.classification.value
        restricted = source is None or source.classification is Classification.RESTRICTED
        if not request.sanitise or rules is None or (restricted and not rules):
            why = "it has no rules" if request.sanitise else "sanitising is switched off"
            raise TargetRefusedError(
                f"{choice.source} is {named}, and {why}: its copy may not be kept",
                remedy=f"Write rules below backup.sanitise.{whole_source(choice.source)}, test it "
                "without keeping the sandbox, or restore it with `restore --sandbox` if you may "
                "see its data.",
                source=choice.source,
            )


def choose(
    request: Request,
    settings: Settings,
    stores: Mapping[str, Store],
    *,
    newest_set: Callable[[Component], BackupSet],
) -> list[Choice]:
    """Return what is tested, in the order in which a whole system comes back.

    Where a component has no complete set, the newest backup of each source is tested, and a note
    says so; a source without any has its problem.
    """
    if request.backup:
        return [_named(request.backup, stores)]
    if request.sources:
        return [
            choice
            for source in request.sources
            for choice in _newest(source, settings.sources[whole_source(source)].component, stores)
        ]
    wanted = request.components or tuple(c for c in RESTORE_ORDER if settings.sources_of(c))
    found: list[Choice] = []
    for component in (one for one in RESTORE_ORDER if one in wanted):
        found += _of_component(component, settings, stores, newest_set)
    return found


def _named(backup: str, stores: Mapping[str, Store]) -> Choice:
    if "/" in backup:
        store, ref = resolve(stores, backup)
        return Choice(ref.component, ref.source, ref.backup_id, prefer=store)
    inventory = Inventory(stores)
    for component in Component:
        ref = BackupRef(backup, component)
        found = inventory.look(ref)
        if found.manifests:
            return Choice(component, ref.source, backup)
    silent = "; ".join(inventory.unreachable.values())
    raise NotFoundError(
        f"There is no backup {backup}" + (f"; not all stores answered: {silent}" if silent else ""),
        remedy="`neuroca-backup list` shows what there is.",
        backup_id=backup,
    )


def _of_component(
    component: Component,
    settings: Settings,
    stores: Mapping[str, Store],
    newest_set: Callable[[Component], BackupSet],
) -> Iterator[Choice]:
    try:
        found = newest_set(component)
    except BackupError as error:
        note = f"{error.problem}; the newest verified backup of each source was tested instead"
        for source in settings.sources_of(component):
            yield from _newest(source, component, stores, notes=(note,))
        return
    for source, member in found.members.items():
        yield Choice(component, source, member.backup_id)
    for source in found.missing:
        yield Choice(component, source, problem=f"The set {found.set_id} has no backup of {source}")


def _newest(
    source: str, component: Component, stores: Mapping[str, Store], notes: tuple[str, ...] = ()
) -> Iterator[Choice]:
    """Yield a source, or every part of one that is many things."""
    held = {name for one, name in Inventory(stores).sources() if one is component}
    parts = sorted(name for name in held if is_part_of(name, source))
    for name in parts if source not in held and parts else [source]:
        yield Choice(component, name, notes=notes)
