"""`backup` and `verify`: making backups, and reading them back."""

# ruff: noqa: PLC0415 - `--help` must not pay for what the commands need

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated

import typer

from neuroca_backup.cli import render, render_sets
from neuroca_backup.cli.reporting import ExitCode, report, worst
from neuroca_backup.cli.session import Keys, Session
from neuroca_backup.errors import BackupError, DamagedError, NotFoundError
from neuroca_backup.model.identity import (
    EVERYTHING,
    RESTORE_ORDER,
    BackupRef,
    attempt_token,
    is_part_of,
    set_id,
)

if TYPE_CHECKING:
    from neuroca_backup.model.status import Level, Verification
    from neuroca_backup.runtime import Runtime
    from neuroca_backup.services.inventory import Inventory

_NOT_MADE = "Nothing was backed up."
_NOT_VERIFIED = "There was nothing to verify."

RecoveryKey = Annotated[
    Path | None, typer.Option(help="The private half of the offline recovery key (PEM).")
]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(help="Its first line opens the recovery key; without it you are asked."),
]


class Mode(StrEnum):
    """How the stages run; see pipeline.mode in backup.yaml."""

    STAGED = "staged"
    STREAMED = "streamed"


class Type(StrEnum):
    """Whether a backup may continue another one; `auto` takes a full one where it cannot."""

    AUTO = "auto"
    FULL = "full"
    INCREMENTAL = "incremental"


class Depth(StrEnum):
    """How deep a check goes: stored digests, original bytes, the engine's structure."""

    INTACT = "intact"
    READABLE = "readable"
    PARSED = "parsed"

    @property
    def level(self) -> Level:
        """The level to be reached."""
        from neuroca_backup.model.status import Level

        return Level[self.name]


class StoreName(StrEnum):
    """The stores that backup.yaml may have."""

    PRIMARY = "primary"
    SECONDARY = "secondary"
    TERTIARY = "tertiary"


def backup(
    context: typer.Context,
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Sources of backup.yaml, or parts of one: models__llama_3; all: every source.",
            metavar="SOURCE",
        ),
    ],
    *,
    mode: Annotated[
        Mode | None, typer.Option(help="Without it what backup.yaml says (pipeline.mode).")
    ] = None,
    backup_type: Annotated[
        Type,
        typer.Option(
            "--type",
            help="auto: continue the newest verified backup, or take a full one where that "
            "cannot be; none of a source that has not changed. full: always make one.",
        ),
    ] = Type.AUTO,
) -> None:
    """Back up sources, and read the copies back.

    The backup is copied to every store. All sources become one backup set; one that
    fails does not stop the others. Of a source that is many things, every part is
    backed up.
    """
    from neuroca_backup.services.backup import BackupType
    from neuroca_backup.services.inventory import Inventory

    runtime = Session.of(context).runtime(Keys.SEAL)
    chosen = mode.value if mode is not None else runtime.settings.pipeline.mode
    run = set_id(at=datetime.now(UTC), run=f"command {attempt_token()}")
    refs, whole, errors = _due(runtime, run, sources)
    standing: dict[BackupRef, BackupRef] = {}

    def one(ref: BackupRef) -> None:
        made = runtime.backups.run(ref, mode=chosen, backup_type=BackupType(backup_type.value))
        if made.unchanged:
            render.say(f"{ref.source} is unchanged: it is what {made.backup_id} holds.")
            standing[ref] = made.ref
        else:
            runtime.verifier.verify(ref)

    try:
        _each(
            runtime,
            [ref for ref in refs if ref not in errors],
            one,
            inventory=Inventory(runtime.stores),
            otherwise=_NOT_MADE,
            standing=standing,
            errors=list(errors.values()),
        )
    finally:
        incomplete = _record_sets(runtime, run, refs, whole, standing)
    if incomplete:
        raise typer.Exit(worst(incomplete))


def _due(
    runtime: Runtime, run: str, sources: Sequence[str]
) -> tuple[list[BackupRef], list[BackupRef], dict[BackupRef, BackupError]]:
    """Return what is to be backed up, the sources that it is all parts of, and their errors.

    Of a source whose parts could not be found, the source itself is to be backed up, and is not.
    """
    due: dict[BackupRef, None] = {}
    whole: list[BackupRef] = []
    errors: dict[BackupRef, BackupError] = {}
    if EVERYTHING in sources:
        sources = [
            source
            for component in RESTORE_ORDER
            for source in runtime.settings.sources_of(component)
        ]
    named = [runtime.ref(run, source) for source in sources]  # refuses a wrong name before all else
    for ref in named:
        try:
            parts = runtime.parts(ref.source)
        except BackupError as error:
            report(error)
            due[ref] = None
            errors[ref] = error
        else:
            due |= {runtime.ref(run, part.source): None for part in parts}
            if any(part.source != ref.source for part in parts):
                whole.append(ref)
    return list(due), whole, errors


def _record_sets(
    runtime: Runtime,
    run: str,
    refs: Sequence[BackupRef],
    whole: Sequence[BackupRef],
    standing: Mapping[BackupRef, BackupRef],
) -> list[BackupError]:
    """Record a set a component, whatever became of its sources; report and return the errors."""
    errors: list[BackupError] = []
    for component in dict.fromkeys(ref.component for ref in refs):
        sources = [ref.source for ref in refs if ref.component is component]
        unchanged = {
            ref.source: one.backup_id for ref, one in standing.items() if ref.component is component
        }
        try:
            recorded = runtime.sets().record(
                run,
                component,
                sources,
                whole=[ref.source for ref in whole if ref.component is component],
                unchanged=unchanged,
            )
        except BackupError as error:
            report(error)
            errors.append(error)
        else:
            render_sets.recorded(recorded)
    return errors


def verify(
    context: typer.Context,
    backup_id: Annotated[str | None, typer.Argument(help="As `list` prints it.")] = None,
    *,
    backup_path: Annotated[
        str | None,
        typer.Option(
            help="The copy at this address, at the full level: s3://..., file:///... or a path, "
            "of a backup or of anything in it."
        ),
    ] = None,
    source: Annotated[str | None, typer.Option(help="All backups of this source.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All backups.")] = False,
    level: Annotated[
        Depth, typer.Option(help="How deep the secondary's copy is read; others: intact.")
    ] = Depth.PARSED,
    store: Annotated[
        StoreName | None, typer.Option(help="Check this store's copy alone, at the full level.")
    ] = None,
    recovery_key: RecoveryKey = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Read backups back and record what was found.

    Exits with 4 when any copy is damaged, after all of them were checked.
    """
    if sum((backup_id is not None, backup_path is not None, source is not None, every)) != 1:
        raise typer.BadParameter("Give a BACKUP_ID, --backup-path, --source or --all: one of them.")
    if backup_path is not None and store is not None:
        raise typer.BadParameter("--backup-path names its store: leave --store out.")
    from neuroca_backup.services.inventory import Inventory

    keys = Keys.NONE if level is Depth.INTACT else Keys.OPEN
    runtime = Session.of(context).runtime(
        keys, recovery_key=recovery_key, passphrase_file=passphrase_file
    )

    if store is not None and store.value not in runtime.stores:
        raise typer.BadParameter(f"backup.yaml has no store {store.value}.")
    inventory = Inventory(runtime.stores)
    alone = None if store is None else store.value
    if backup_path is not None:
        alone, there = _at(runtime, backup_path)
        refs = [there]
    else:
        refs = list(_chosen(runtime, inventory, backup_id=backup_id, source=source))

    def one(ref: BackupRef) -> None:
        if alone is None:
            runtime.verifier.verify(ref, level=level.level)
        else:
            _refuse_findings(runtime.verifier.check(ref, alone, level=level.level))

    _each(runtime, refs, one, inventory=inventory, otherwise=_NOT_VERIFIED)


def _at(runtime: Runtime, uri: str) -> tuple[str, BackupRef]:
    """Return the store and the backup at `uri`; raise where nobody knows of such a backup."""
    from neuroca_backup.services.addresses import resolve
    from neuroca_backup.services.inventory import Inventory

    name, ref = resolve(runtime.stores, uri)
    found = Inventory(runtime.stores).look(ref)
    if not found.manifests and not found.problems:
        raise NotFoundError(
            f"There is no backup at {uri}, and no other store has {ref.backup_id}",
            remedy="`neuroca-backup list` shows what there is.",
            backup_id=ref.backup_id,
        )
    return name, ref


def _chosen(
    runtime: Runtime, inventory: Inventory, *, backup_id: str | None, source: str | None
) -> Iterator[BackupRef]:
    from neuroca_backup.cli.choosing import component_of, look_up

    if backup_id is not None:
        yield look_up(runtime, backup_id).ref
        return
    if source is not None:
        component = component_of(runtime, source, backup_id=None)
        parts = [
            (one, name)
            for one, name in inventory.sources()
            if one is component and is_part_of(name, source)
        ]
        wanted = [(component, source), *parts]
    else:
        wanted = list(inventory.sources())
    for component, name in wanted:
        for found in inventory.newest_first(component, name):
            if not found.expired:  # it may lose its objects while they are read
                yield found.ref


def _each(
    runtime: Runtime,
    refs: Sequence[BackupRef],
    work: Callable[[BackupRef], None],
    *,
    inventory: Inventory,
    otherwise: str,
    standing: Mapping[BackupRef, BackupRef] = MappingProxyType({}),
    errors: Sequence[BackupError] = (),
) -> None:
    """Do `work` for every one of `refs`, whatever becomes of the others; then show them all.

    `otherwise` is said where there is nothing to show. `standing` has the backups that are shown
    in the place of those that were not made; `errors` are of what was not even begun.
    """
    errors = list(errors)
    for ref in refs:
        try:
            work(ref)
        except BackupError as error:
            report(error)
            errors.append(error)
    count = render.backups(
        (one for one in (inventory.look(standing.get(ref, ref)) for ref in refs) if one.manifests),
        stores=list(runtime.stores),
        unreachable=inventory.unreachable,
        now=datetime.now(UTC),
        otherwise=otherwise,
    )
    if errors:
        raise typer.Exit(worst(errors))
    if not count:
        raise typer.Exit(ExitCode.FAILED)


def _refuse_findings(result: Verification) -> None:
    if result.findings:
        listed = "; ".join(f"{finding.key}: {finding.problem}" for finding in result.findings)
        raise DamagedError(
            f"{result.backup_id} is damaged in {result.store}: {listed}",
            remedy="Another store's copy can be restored; find out what damaged this one, "
            "then take a new backup.",
            backup_id=result.backup_id,
        )
