"""Retention where the tertiary store keeps its copies for longer than the others.

Each of the two groups of stores is planned and carried out by itself, as each has all that its own
backups need. So a backup leaves the near stores when it is due there, and the tertiary one later.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime

from neuroca_backup.catalog import Catalog
from neuroca_backup.model.identity import BackupRef, Component
from neuroca_backup.services.archiving import TERTIARY
from neuroca_backup.services.audit import Audit
from neuroca_backup.services.inventory import holds
from neuroca_backup.services.retention.applying import Applied, Retention
from neuroca_backup.services.retention.planning import Plan, Rules
from neuroca_backup.settings import Settings
from neuroca_backup.stores import Store


def rules_of_tertiary(settings: Settings) -> Rules:
    """Return the rules for the tertiary store.

    A copy there counts as good by being there: each byte was held to its digest on its way, and to
    read it back would mean to retrieve it from its archive.
    """
    section = settings.retention
    kept = {
        component: section.tertiary.of(component, nearby=section.of(component))
        for component in Component
    }
    return replace(Rules.of(settings), kept=kept, presence_counts=True)


class TieredRetention(Retention):
    """`Retention` over all stores, whose tertiary one has rules of its own.

    Args:
        stores: Every configured store by name, the tertiary one among them.
        rules: How long what is kept in the near stores.
        tertiary: The same for the tertiary store.
        catalog: Where deletions are noted.
        workers: Objects handled at once.
        clock: What time it is, aware.
        audit: The audit trail; without one, that of these stores.
    """

    def __init__(
        self,
        *,
        stores: Mapping[str, Store],
        rules: Rules,
        tertiary: Rules,
        catalog: Catalog,
        workers: int,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        audit: Audit | None = None,
    ) -> None:
        # One trail in all stores, whichever of them is planned by itself.
        trail = audit or Audit(stores=stores, catalog=catalog, clock=clock)
        super().__init__(
            stores=stores,
            rules=rules,
            catalog=catalog,
            workers=workers,
            clock=clock,
            audit=trail,
        )
        near = {name: one for name, one in stores.items() if name != TERTIARY}
        far = {TERTIARY: stores[TERTIARY]}

        def part(
            own: Mapping[str, Store], others: Mapping[str, Store], own_rules: Rules
        ) -> Retention:
            def remains(ref: BackupRef) -> bool:
                return any(holds(one, ref) for one in others.values())

            return Retention(
                stores=own,
                rules=own_rules,
                catalog=catalog,
                workers=workers,
                clock=clock,
                remains=remains,
                audit=trail,
            )

        self._parts = (part(near, far, rules), part(far, near, tertiary))

    def plan(self, component: Component, source: str) -> Plan:
        """Return what becomes of the backups of `source`, those in the tertiary store after all."""
        near, far = (one.plan(component, source) for one in self._parts)
        in_far = tuple(replace(one, reason=f"tertiary: {one.reason}") for one in far.decisions)
        return Plan(
            component=component,
            source=source,
            decisions=(*near.decisions, *in_far),
            unknown=(*near.unknown, *far.unknown),
            excess="; ".join(one for one in (near.excess, far.excess) if one),
        )

    def apply(
        self, component: Component, source: str, *, confirmed: bool = False, actor: str
    ) -> Applied:
        """Carry both plans out, first that of the near stores; raises what `Retention` raises."""
        near, far = (
            one.apply(component, source, confirmed=confirmed, actor=actor) for one in self._parts
        )
        return Applied(
            component=component,
            source=source,
            taken_back=near.taken_back + far.taken_back,
            expired=near.expired + far.expired,
            erased=near.erased + far.erased,
            spared=near.spared + far.spared,
            size=near.size + far.size,
        )
