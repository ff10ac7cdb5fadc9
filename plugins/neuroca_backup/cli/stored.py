"""`list` and `show`: what there is, read from the stores themselves; the catalog is not asked."""

# ruff: noqa: PLC0415 - `--help` must not pay for what the commands need

from __future__ import annotations

import heapq
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from neuroca_backup.cli import render
from neuroca_backup.cli.reporting import ExitCode
from neuroca_backup.cli.session import AsOf, Keys, Session
from neuroca_backup.model.identity import Component, is_part_of

if TYPE_CHECKING:
    from neuroca_backup.keyring.keys_document import KeysDocument
    from neuroca_backup.runtime import Runtime
    from neuroca_backup.services.inventory import Listed

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def list_backups(
    context: typer.Context,
    *,
    component: Annotated[
        Component | None, typer.Option(help="Only this component.", case_sensitive=False)
    ] = None,
    source: Annotated[str | None, typer.Option(help="Only this source, and its parts.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most, newest first.")] = 50,
    as_of: AsOf = None,
    as_json: AsJson = False,
) -> None:
    """List the backups that the stores hold, newest first.

    Shows how far each store's copy is proven; the catalog is not needed. Exits with 1
    where there is none.
    """
    from neuroca_backup.services.inventory import Inventory

    runtime = Session.of(context).runtime(Keys.NONE, as_of=as_of)
    inventory = Inventory(runtime.stores)
    chosen = [
        inventory.newest_first(one, name)
        for one, name in inventory.sources()
        if component in {None, one}
        and (source is None or name == source or is_part_of(name, source))
    ]
    merged = heapq.merge(*chosen, key=lambda found: found.ref.time, reverse=True)
    found = islice(merged, limit)
    silent, now = inventory.unreachable, datetime.now(UTC)
    if as_json:
        count = render.backups_json(found, unreachable=silent, now=now)
    else:
        count = render.backups(found, stores=list(runtime.stores), unreachable=silent, now=now)
    if not count:
        raise typer.Exit(ExitCode.FAILED)


def show(
    context: typer.Context,
    backup_id: Annotated[str, typer.Argument(help="As `list` prints it.")],
    *,
    as_of: AsOf = None,
    as_json: AsJson = False,
) -> None:
    """Show one backup: what, where, who can open it."""
    from neuroca_backup.cli.choosing import look_up

    runtime = Session.of(context).runtime(Keys.NONE, as_of=as_of)
    found = look_up(runtime, backup_id)
    keys, problems = _keys(runtime, found)
    chain, broken = _chain(runtime, found)
    print_it = render.backup_json if as_json else render.backup
    print_it(found, keys=keys, key_problems=problems, chain=chain, chain_problem=broken)


def list_sets(
    context: typer.Context,
    *,
    component: Annotated[
        Component | None, typer.Option(help="Only this component.", case_sensitive=False)
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most, newest first.")] = 50,
    as_of: AsOf = None,
    as_json: AsJson = False,
) -> None:
    """List the backup sets: what one run backed up.

    `skew` is the time between the earliest and the latest moment that the backups
    of a set bring back. Exits with 1 where there is no set.
    """
    from neuroca_backup.cli import render_sets

    sets = Session.of(context).runtime(Keys.NONE, as_of=as_of).sets()
    chosen = [sets.newest_first(one) for one in Component if component in {None, one}]
    merged = heapq.merge(*chosen, key=lambda one: one.set_id, reverse=True)
    found = islice(merged, limit)
    print_them = render_sets.listed_json if as_json else render_sets.listed
    count = print_them(
        found,
        stores=list(sets.stores),
        unreachable=sets.unreachable,
        now=datetime.now(UTC),
    )
    if not count:
        raise typer.Exit(ExitCode.FAILED)


def _chain(runtime: Runtime, found: Listed) -> tuple[list[str], str]:
    """Return the ids that a restore needs, the full backup first, or why it cannot be done."""
    from neuroca_backup.errors import ChainBrokenError
    from neuroca_backup.services import chains
    from neuroca_backup.services.inventory import Inventory

    if found.manifest is None:
        return [], ""
    try:
        chain = chains.gather(Inventory(runtime.stores), found)
    except ChainBrokenError as error:
        return [], str(error)
    return [one.ref.backup_id for one in chain], ""


def _keys(runtime: Runtime, found: Listed) -> tuple[dict[str, KeysDocument], dict[str, str]]:
    """Return keys.json by store, and by store why there is none."""
    from neuroca_backup.errors import BackupError
    from neuroca_backup.services.inventory import read_keys

    keys: dict[str, KeysDocument] = {}
    problems: dict[str, str] = {}
    for store, manifest in found.manifests.items():
        try:
            keys[store] = read_keys(runtime.stores[store], manifest)
        except BackupError as error:
            problems[store] = error.problem
    return keys, problems
