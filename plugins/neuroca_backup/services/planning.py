"""Choosing what is restored: the backup, its chain, and the earlier one that may stand in for it.

The newest is wanted and the newest good one is what there is; whatever lies between is named.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import islice

from neuroca_backup.errors import (
    BackupError,
    ChainBrokenError,
    ConfigurationError,
    NotFoundError,
)
from neuroca_backup.model.identity import BackupRef, Component
from neuroca_backup.model.manifest import Manifest
from neuroca_backup.model.tickets import RestorePlan
from neuroca_backup.services import chains, past
from neuroca_backup.services.inventory import Inventory, Listed
from neuroca_backup.stores import Store

log = logging.getLogger(__name__)

# The plan travels by XCom: a source whose backups all went wrong must not fill it.
_TOLD = 10


def plan(
    stores: Mapping[str, Store],
    *,
    component: Component,
    source: str,
    restore_id: str,
    backup_id: str | None,
    before: datetime | None,
    until: datetime | None,
    only: Sequence[str],
    allow_older: bool,
) -> RestorePlan:
    """Choose the backup, and gather the chain that it needs; `stores` in the order of use.

    By id; or the newest verified one (before a time); or, with `until`, the one that reaches that
    moment with the least to replay. With `allow_older` one whose chain is broken gives way to the
    newest earlier one that is whole.

    Raises:
        NotFoundError: There is no such backup in any store that answers.
        ChainBrokenError: A backup that it continues is missing or damaged.
        ConfigurationError: The chosen backup does not reach from before `until` to after it.
    """
    inventory = Inventory(stores)
    passed: tuple[str, ...] = ()
    if until is not None and backup_id is None:
        chain = chains.covering(inventory, component, source, until=until)
    else:
        found = inventory.find(source, component=component, backup_id=backup_id, before=before)
        if backup_id is None:
            passed = tuple(islice(_newer(inventory, found, before=before), _TOLD))
        try:
            chain = chains.gather(inventory, found)
        except ChainBrokenError as error:
            earlier = None
            if allow_older and until is None:
                earlier = _earlier(inventory, found.ref, bad=(str(error.facts.get("link")),))
            if earlier is None:
                raise
            passed += (_instead(found.ref.backup_id, error),)
            chain = earlier
    manifests = chains.manifests(chain)
    if until is not None:
        _require_within(until, manifests)
    for note in passed:
        log.warning("%s", note)
    return RestorePlan(
        restore_id=restore_id,
        backup_id=manifests[-1].backup_id,
        component=component.value,
        source=source,
        engine=manifests[-1].engine,
        # Each later step asks in this order: a dead store first would cost its timeouts again.
        stores=tuple(sorted(stores, key=lambda name: name in inventory.unreachable)),
        plain_size=sum(manifest.plain_size for manifest in manifests),
        members=sum(len(manifest.members) for manifest in manifests),
        taken_at=manifests[-1].started_at.isoformat(),
        verified=all(one.verified for one in chain),
        chain=tuple(manifest.backup_id for manifest in manifests),
        until=until.isoformat() if until else "",
        only=tuple(only),
        allow_older=allow_older,
        passed_over=passed,
    )


def older(
    stores: Mapping[str, Store], failed: RestorePlan, why: BackupError, *, bad: Collection[str]
) -> RestorePlan | None:
    """Return the plan of the newest verified backup before the `failed` one, or None.

    Its whole chain is verified and has none of the ids `bad`; the same engine made it. A moment
    between two backups is reached by one chain alone, so for `until` there is none.
    """
    if failed.until:
        return None
    chain = _earlier(Inventory(stores), failed.ref, bad=bad, engine=failed.engine)
    if chain is None:
        return None
    manifests = chains.manifests(chain)
    return replace(
        failed,
        backup_id=manifests[-1].backup_id,
        plain_size=sum(manifest.plain_size for manifest in manifests),
        members=sum(len(manifest.members) for manifest in manifests),
        taken_at=manifests[-1].started_at.isoformat(),
        verified=True,
        chain=tuple(manifest.backup_id for manifest in manifests),
        passed_over=(*failed.passed_over, _instead(failed.backup_id, why)),
    )


def refusal(error: BackupError, earlier: RestorePlan | None, *, source: str) -> BackupError:
    """Return `error`, that no store has the wanted backup whole, with what could be restored."""
    if earlier is None:
        remedy = f"No earlier verified backup of {source} can take its place. {error.remedy}"
    else:
        remedy = (
            f"{earlier.backup_id}, taken {earlier.taken_at}, could be restored instead: name it, "
            "or allow an older backup (allow_older in the form, --allow-older in the command). "
            f"{past.REMEDY}"
        )
    facts = {**error.facts, "older": None if earlier is None else earlier.backup_id}
    return type(error)(error.problem, remedy=remedy, **facts)


def _instead(backup_id: str, why: BackupError) -> str:
    return f"{backup_id} is not restored, an older backup is, as was allowed: {why.problem}"


def _earlier(
    inventory: Inventory, before: BackupRef, *, bad: Collection[str], engine: str | None = None
) -> tuple[Listed, ...] | None:
    """Return the chain of the newest backup before another that is verified whole, or None."""
    for found in inventory.newest_first(before.component, before.source):
        manifest = found.manifest
        if found.ref.backup_id >= before.backup_id or manifest is None:
            continue
        if manifest.before_restore or engine not in (None, manifest.engine):
            continue
        try:
            chain = chains.gather(inventory, found) if found.verified else ()
        except ChainBrokenError as error:
            log.info("%s cannot stand in: %s", found.ref.backup_id, error.problem)
            continue
        ids = {one.ref.backup_id for one in chain}
        if chain and ids.isdisjoint(bad) and all(one.verified for one in chain):
            return chain
    return None


def _newer(inventory: Inventory, chosen: Listed, *, before: datetime | None) -> Iterator[str]:
    """Yield why each backup that is newer than the newest verified one is not restored."""
    for found in inventory.newest_first(chosen.ref.component, chosen.ref.source):
        if found.ref.backup_id <= chosen.ref.backup_id:
            return
        manifest = found.manifest
        if manifest is not None and (
            manifest.before_restore or (before is not None and manifest.started_at >= before)
        ):
            continue
        if found.damaged or manifest is None:
            why = "every copy of it is damaged"
        else:
            why = "it is from the future" if found.verified else "no copy of it is verified"
        yield f"{found.ref.backup_id} is newer, and passed over: {why}"


def _require_within(until: datetime, chain: Sequence[Manifest]) -> None:
    first, last = chain[0].dump.consistent_at, chain[-1].dump.consistent_at
    if not first <= until <= last:
        raise ConfigurationError(
            f"{chain[-1].backup_id} can be restored to moments from {first.isoformat()} to "
            f"{last.isoformat()}, not to {until.isoformat()}",
            remedy="Choose a moment in between, or leave the backup to be found by the moment.",
            value=until.isoformat(),
        )


def order(stores: Mapping[str, Store], prefer: str | None) -> dict[str, Store]:
    """Return the stores in the order of use, the preferred one first.

    Raises:
        NotFoundError: There is no store of that name.
    """
    if prefer is None or prefer == "auto":
        return dict(stores)
    if prefer not in stores:
        raise NotFoundError(
            f"There is no store {prefer!r}",
            remedy=f"Use one of: {', '.join(stores)}.",
            value=prefer,
        )
    return {prefer: stores[prefer], **stores}
