"""Chains: which backup an incremental one continues, and which ones a restore needs.

A chain is a full backup and the incremental ones after it, each continuing the one before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from neuroca_backup.errors import ChainBrokenError, NotFoundError
from neuroca_backup.model.identity import BackupRef, Component
from neuroca_backup.model.manifest import Manifest
from neuroca_backup.model.status import Level
from neuroca_backup.services.inventory import CLOCK_TOLERANCE, Inventory, Listed


@dataclass(frozen=True, slots=True)
class Choice:
    """The backup to continue; without one, `reason` says why a full backup is taken."""

    parent: Listed | None
    reason: str = ""


def gather(inventory: Inventory, chosen: Listed) -> tuple[Listed, ...]:
    """Return the chain that ends with `chosen`, its full backup first.

    Raises:
        ChainBrokenError: A link is missing, damaged in every store, or of another engine; names
            it, and the newest point that can still be restored.
    """
    try:
        return _walk(inventory, chosen)
    except ChainBrokenError as error:
        offer = newest_point(inventory, chosen.ref.component, chosen.ref.source)
        raise ChainBrokenError(error.problem, remedy=offer, **error.facts) from None


def newest_point(inventory: Inventory, component: Component, source: str) -> str:
    """Return the sentence that offers the newest backup whose whole chain is there and sound."""
    for found, chain in _whole(inventory, component, source):
        at = chain[-1].dump.consistent_at.isoformat(timespec="seconds")
        return f"The newest restorable point is {found.ref.backup_id}, the state of {at}."
    return f"No verified backup of {source} can be restored; take a full one."


def continued(
    inventory: Inventory, ref: BackupRef, *, engine: str, full_every: timedelta, now: datetime
) -> Choice:
    """Choose the backup that the incremental backup `ref` continues: the newest that may be.

    It and its whole chain must be verified, made by the same engine, older than `ref` and not
    from the future; and its full backup may not be older than `full_every`.
    """
    newest = None
    for found in inventory.newest_first(ref.component, ref.source):
        if found.ref.backup_id >= ref.backup_id:
            continue
        newest = newest or found.ref.backup_id
        reason = _unfit(inventory, found, engine=engine, now=now)
        if reason is None:
            full = manifests(_walk(inventory, found))[0]
            if now - full.started_at <= full_every:
                return Choice(found)
            return Choice(
                None, f"the last full backup, {full.backup_id}, is older than {_words(full_every)}"
            )
        if found.manifest is not None and now - found.manifest.started_at > full_every:
            break
    if newest is None:
        return Choice(None, "there is no backup to continue")
    return Choice(None, f"no backup can be continued; the newest is {newest}, and {reason}")


def referable(
    inventory: Inventory, ref: BackupRef, *, engine: str, full_every: timedelta, now: datetime
) -> Choice:
    """Choose the backup whose members the backup `ref` may refer to: the newest that may be.

    It must be made by the same engine, older than `ref`, not from the future, at most `full_every`
    old, and whole in every store: the same attempt everywhere, read back and found sound. Behind a
    damaged one nothing is chosen: what is damaged may lie in the earlier one that it refers to.
    """
    why = ""
    for found in inventory.newest_first(ref.component, ref.source):
        if found.ref.backup_id >= ref.backup_id:
            continue
        if now - found.ref.time > full_every:
            reason: str | None = f"it is older than {_words(full_every)}"
        else:
            reason = _unfit(inventory, found, engine=engine, now=now) or _partial(inventory, found)
        if reason is None:
            return Choice(found)
        why = why or f"the newest is {found.ref.backup_id}, and {reason}"
        found_damaged = any(check.findings for check in found.verifications.values())
        if found_damaged or now - found.ref.time > full_every:
            break
    return Choice(None, f"no backup can be referred to; {why}" if why else "it is the first one")


def covering(
    inventory: Inventory, component: Component, source: str, *, until: datetime
) -> tuple[Listed, ...]:
    """Return the shortest whole chain that can be restored to the moment `until`.

    Raises:
        NotFoundError: None covers that moment; names the nearest points before and after it.
    """
    best: tuple[Listed, ...] = ()
    before: datetime | None = None
    after: datetime | None = None
    for found, chain in _whole(inventory, component, source):
        first, last = chain[0].dump.consistent_at, chain[-1].dump.consistent_at
        if first <= until <= last:
            best = _walk(inventory, found)
        elif last < until:
            before = last
            break
        else:
            after = last
    if best:
        return best
    points = [
        f"{word} {at.isoformat(timespec='seconds')}"
        for word, at in (("before it", before), ("after it", after))
        if at is not None
    ]
    raise NotFoundError(
        f"No backup of {source} can be restored to {until.isoformat(timespec='seconds')}",
        remedy=f"The nearest restorable points are {' and '.join(points)}."
        if points
        else "There is no verified backup at all.",
        value=until.isoformat(),
    )


def manifests(chain: Sequence[Listed]) -> tuple[Manifest, ...]:
    """Return a readable manifest of every link."""
    found = tuple(one.manifest for one in chain)
    return tuple(one for one in found if one is not None)


def _whole(
    inventory: Inventory, component: Component, source: str
) -> Iterator[tuple[Listed, tuple[Manifest, ...]]]:
    """Yield the verified backups with a whole chain, from the newest to the oldest."""
    for found in inventory.newest_first(component, source):
        if not found.verified:
            continue
        try:
            yield found, manifests(_walk(inventory, found))
        except ChainBrokenError:
            continue


def _unfit(inventory: Inventory, found: Listed, *, engine: str, now: datetime) -> str | None:
    """Return why `found` cannot be continued, or None."""
    manifest = found.manifest
    if manifest is None:
        return "it has no readable manifest"
    if manifest.engine != engine:
        return f"it was made by the engine {manifest.engine}"
    if not found.verified:
        return "it has expired" if found.expired else "it was not verified, or found damaged"
    if max(manifest.started_at, manifest.dump.consistent_at) > now + CLOCK_TOLERANCE:
        return "it is from the future: some clock is wrong"
    try:
        chain = _walk(inventory, found)
    except ChainBrokenError as error:
        return error.problem
    unverified = next((one for one in chain if not one.verified), None)
    return None if unverified is None else f"its link {unverified.ref.backup_id} is not verified"


def _partial(inventory: Inventory, found: Listed) -> str | None:
    """Return why not every store holds `found` whole, or None."""
    attempts = {manifest.attempt for manifest in found.manifests.values()}
    if len(attempts) > 1:
        return "the stores hold different attempts at it"
    for store in inventory.stores:
        check = found.verifications.get(store)
        if store not in found.manifests:
            return f"{store} does not have it"
        if check is None or not check.sound or check.level < Level.INTACT:
            return f"the copy in {store} was not verified, or found damaged"
    return None


def _walk(inventory: Inventory, chosen: Listed) -> tuple[Listed, ...]:
    chain = [chosen]
    while True:
        manifest = chain[0].manifest
        if manifest is None:
            problems = "; ".join(chain[0].problems.values()) or "no store has it"
            raise _broken(chosen, chain[0].ref.backup_id, problems)
        if chain[0] is not chosen and chain[0].damaged:
            raise _broken(chosen, manifest.backup_id, "every copy of it is damaged")
        if manifest.kind == "full":
            return tuple(chain)
        if manifest.parent is None or manifest.parent >= manifest.backup_id:
            # Every parent is older, so this also ends a chain that bites its own tail.
            raise _broken(chosen, manifest.backup_id, f"it names {manifest.parent} as its parent")
        ref = BackupRef(backup_id=manifest.parent, component=manifest.component)
        chain.insert(0, inventory.look(ref))


def _broken(chosen: Listed, link: str, why: str) -> ChainBrokenError:
    return ChainBrokenError(
        f"{chosen.ref.backup_id} cannot be restored: of its chain {link} is missing or damaged: "
        f"{why}",
        remedy="Restore an older backup.",
        backup_id=chosen.ref.backup_id,
        link=link,
    )


def _words(period: timedelta) -> str:
    return f"{period.total_seconds() / 3600:g} hours"
