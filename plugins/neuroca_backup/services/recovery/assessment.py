"""The first step of a recovery: what is lost, what there is, what it will cost; one plan of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from neuroca_backup import engines
from neuroca_backup.catalog import Catalog
from neuroca_backup.errors import BackupError, TransientError
from neuroca_backup.model.endpoint import Connections
from neuroca_backup.model.identity import BackupRef, Component, whole_source
from neuroca_backup.model.tickets import RestorePlan
from neuroca_backup.services import targets
from neuroca_backup.services.forecast import forecast
from neuroca_backup.services.inventory import Inventory
from neuroca_backup.services.proposal import saved_words
from neuroca_backup.services.recovery import tiers
from neuroca_backup.services.recovery.estimate import estimates
from neuroca_backup.services.recovery.objectives import in_force
from neuroca_backup.services.recovery.plan import (
    PlannedComponent,
    PlannedSource,
    Reached,
    RecoveryPlan,
    recovered,
)
from neuroca_backup.services.recovery.request import IN_PLACE, RecoveryRequest
from neuroca_backup.services.recovery.selection import Chosen, Selection
from neuroca_backup.services.recovery.survey import Survey
from neuroca_backup.services.restore import Restores
from neuroca_backup.settings import Settings
from neuroca_backup.stores import Store

# What covers a source that is left as it is.
THIS_AIRFLOW = "this Airflow"
# Where a drill restores to.
_NOWHERE = "a throwaway {word} of this run"


@dataclass(frozen=True, slots=True)
class Assessment:
    """Makes the plan of a recovery; it writes nothing."""

    settings: Settings
    connections: Connections
    stores: Mapping[str, Store]
    catalog: Catalog
    restores: Restores
    selection: Selection
    survey: Survey
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    def look_around(self, request: RecoveryRequest) -> tuple[Reached, ...]:
        """Ask every source of the lost components, and every store, whether it answers."""
        lost = request.lost(self.settings)
        return self.survey.ask(
            [name for name, one in self.settings.sources.items() if one.component in lost]
        )

    def plan(
        self,
        request: RecoveryRequest,
        *,
        recovery_id: str,
        restore_prefix: str,
        declared_at: datetime,
        actor: str,
        reached: Sequence[Reached] = (),
    ) -> RecoveryPlan:
        """Choose what comes back from where, in which order; what cannot is named with why.

        Args:
            request: What was asked for.
            recovery_id: Which recovery it is.
            restore_prefix: What the id of every source's restore begins with.
            declared_at: When the disaster began to count (aware).
            actor: Who asked.
            reached: What `look_around` found.

        Raises:
            NotFoundError: The set that was named does not exist.
            StoreUnavailableError: No store answers.
        """
        chosen = list(self._chosen(request))
        found = [
            self._source(request, one, source, restore_prefix, declared_at)
            for one in chosen
            for source in {**one.backups, **one.problems}
        ]
        sources = tiers.related(found, self.settings)
        return self._made(
            request,
            sources,
            recovery_id=recovery_id,
            declared_at=declared_at,
            actor=actor,
            components=tuple(self._component(one, sources) for one in chosen),
            reached=(*reached, *self._keys(sources)),
        )

    def again(self, request: RecoveryRequest, before: RecoveryPlan) -> RecoveryPlan:
        """Return what the backups that `before` names would mean now, planned anew.

        Raises:
            BackupError: One of them cannot be planned any more.
        """
        sources = []
        for one in before.sources:
            if one.plan is None:
                sources.append(one)
                continue
            plan = self.restores.plan(
                component=one.component,
                source=one.source,
                restore_id=one.plan.restore_id,
                backup_id=one.plan.backup_id,
                until=datetime.fromisoformat(one.plan.until) if one.plan.until else None,
                prefer=request.prefer,
                allow_older=request.allow_older,
            )
            sources.append(
                one.model_copy(update={"plan": plan, **self._place(request, one.source, plan)})
            )
        return self._made(
            request,
            tuple(sources),
            recovery_id=before.recovery_id,
            declared_at=before.declared_at,
            actor=before.actor,
            components=before.components,
            reached=before.reached,
        )

    def _chosen(self, request: RecoveryRequest) -> Iterator[Chosen]:
        named = None
        moment = request.moment
        if request.set_id is not None:
            named, moment = self.selection.named(request.set_id)
        for component in request.lost(self.settings):
            sources = tuple(self.settings.sources_of(component))
            if named is not None and named.component is component:
                yield self.selection.of_set(named, sources)
            elif moment is not None:
                yield self.selection.before(component, sources, moment)
            else:
                yield self.selection.newest(component, sources)

    def _source(
        self,
        request: RecoveryRequest,
        chosen: Chosen,
        source: str,
        prefix: str,
        declared_at: datetime,
    ) -> PlannedSource:
        form = request.restore_form(source)
        configured = self.settings.sources.get(whole_source(source))
        if configured is not None and request.leaves(source, configured.engine):
            return PlannedSource(
                source=source,
                component=chosen.component,
                problem="this recovery runs with it",
                covered_by=THIS_AIRFLOW,
                form=form,
            )
        if source in chosen.problems:
            return PlannedSource(
                source=source,
                component=chosen.component,
                problem=chosen.problems[source],
                form=form,
            )
        try:
            plan = self._restore(request, chosen, source, f"{prefix}-{source}")
            place = self._place(request, source, plan)
            levels, moment = self._proof(plan)
        except TransientError:
            raise
        except BackupError as error:
            return PlannedSource(
                source=source, component=chosen.component, problem=str(error), form=form
            )
        loss = None if moment is None else max(0.0, (declared_at - moment).total_seconds())
        return PlannedSource(
            source=source,
            component=chosen.component,
            plan=plan,
            forecast=forecast(self.catalog, source, plan.plain_size),
            levels=levels,
            brings_back=moment,
            loss_seconds=loss,
            form=form,
            **place,
        )

    def _restore(
        self, request: RecoveryRequest, chosen: Chosen, source: str, restore_id: str
    ) -> RestorePlan:
        def plan(**which: object) -> RestorePlan:
            return self.restores.plan(
                component=chosen.component,
                source=source,
                restore_id=restore_id,
                prefer=request.prefer,
                allow_older=request.allow_older,
                **which,  # type: ignore[arg-type]  # one of the ways to choose
            )

        configured = self.settings.sources.get(whole_source(source))
        if (
            request.moment is not None
            and configured is not None
            and engines.named(configured.engine).incremental
        ):
            try:
                return plan(until=request.moment)
            except TransientError:
                raise
            except BackupError:
                pass  # no chain reaches from before that moment to after it
        backup_id = chosen.backups[source]
        if backup_id is not None:
            return plan(backup_id=backup_id)
        return plan(before=chosen.moment)

    def _place(self, request: RecoveryRequest, source: str, plan: RestorePlan) -> dict[str, str]:
        in_place = request.target == IN_PLACE
        engine = engines.named(plan.engine)
        place = request.destination_of(source)
        if in_place:
            own = targets.own(
                source, self.settings.sources[whole_source(source)], connections=self.connections
            )
            to = targets.with_default_port(own, plan.engine).label
        elif place is not None:
            to = place if place.startswith("/") else f"the server of the connection {place}"
        else:
            to = _NOWHERE.format(word="directory" if targets.of_files(plan.engine) else "server")
        saved = saved_words(replaces=in_place, keeps=engine.keeps, wanted=request.save_first)
        return {"to": to, "saved": saved}

    def _proof(self, plan: RestorePlan) -> tuple[dict[str, str], datetime | None]:
        """Return how far the backup was proven in each store, and the moment it brings back."""
        listed = Inventory(self.stores).look(plan.ref)
        levels = {
            store: "damaged" if found.findings else found.level.name
            for store, found in listed.verifications.items()
        }
        levels |= dict.fromkeys(listed.manifests.keys() - levels.keys(), "never verified")
        levels |= dict.fromkeys(listed.problems, "not readable")
        if plan.until:
            return levels, datetime.fromisoformat(plan.until)
        return levels, listed.current_at

    def _keys(self, sources: Sequence[PlannedSource]) -> tuple[Reached, ...]:
        planned = next((one.plan for one in sources if one.plan is not None), None)
        if planned is None:
            return ()
        component = Component(planned.component)
        return self.survey.keys(BackupRef(backup_id=planned.backup_id, component=component))

    def _component(self, chosen: Chosen, sources: Sequence[PlannedSource]) -> PlannedComponent:
        mine = [
            one for one in sources if one.component is chosen.component and one.plan is not None
        ]
        moments = [one.brings_back for one in mine if one.brings_back is not None]
        losses = [one.loss_seconds for one in mine if one.loss_seconds is not None]
        skew = (max(moments) - min(moments)).total_seconds() if moments else None
        return PlannedComponent(
            component=chosen.component,
            set_id=chosen.set_id,
            skew_seconds=skew,
            loss_seconds=max(losses, default=None),
            rpo=self.settings.objectives.rpo.of(chosen.component),
            notes=chosen.notes,
        )

    def _made(
        self,
        request: RecoveryRequest,
        sources: tuple[PlannedSource, ...],
        *,
        recovery_id: str,
        declared_at: datetime,
        actor: str,
        components: tuple[PlannedComponent, ...],
        reached: Sequence[Reached],
    ) -> RecoveryPlan:
        recovery = self.settings.recovery
        order = recovery.order(self.settings.sources)
        priorities = tuple(
            (name, tuple(one.source for one in sources if whole_source(one.source) in chosen))
            for name, chosen in order.items()
        )
        services = (
            tuple(
                one.name
                for component in request.lost(self.settings)
                for one in self.settings.services.get(component, ())
            )
            if request.target == IN_PLACE
            else ()
        )
        now = self.clock()
        return RecoveryPlan(
            recovery_id=recovery_id,
            what_happened=request.what_happened or "A drill",
            actor=actor,
            declared_at=declared_at,
            made_at=now,
            recover_to=request.recover_to,
            target=request.target,
            prefer_store=request.prefer_store,
            allow_older=request.allow_older,
            approvals=request.needed(self.settings),
            components=components,
            sources=sources,
            priorities=priorities,
            reached=tuple(reached),
            estimates=estimates(
                in_force(self.settings.objectives.rto, recovered(sources)),
                sources,
                priorities,
                used=(now - declared_at).total_seconds(),
            ),
            provision=_words(recovery.provision, drill=request.drill),
            redirect=_words(recovery.redirect, drill=request.drill),
            services=tuple(dict.fromkeys(services)),
            team=recovery.team,
            channel=recovery.channel,
        )


def _words(hook: object, *, drill: bool) -> tuple[str, ...]:
    """Return the words of a hook; none in a drill, which changes nothing outside."""
    return () if drill or hook is None else tuple(getattr(hook, "command", ()))
