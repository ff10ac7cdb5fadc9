"""The objectives of one installation: reads what is there, and judges it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from neuroca_backup.catalog import Catalog, RestoreRecord
from neuroca_backup.catalog.null import NullCatalog
from neuroca_backup.errors import BackupError
from neuroca_backup.model.identity import Component
from neuroca_backup.services import history
from neuroca_backup.services.audit import Audit
from neuroca_backup.services.forecast import LOOKED_AT, Outlook, outlook
from neuroca_backup.services.history import History
from neuroca_backup.services.objectives import judging, recovery, telling
from neuroca_backup.services.objectives.findings import Finding, Kind, Level
from neuroca_backup.services.objectives.gathering import Gathering, Watched
from neuroca_backup.services.objectives.judging import Facts, Rules
from neuroca_backup.services.objectives.telling import Decision, MonitorState
from neuroca_backup.settings import Settings
from neuroca_backup.stores import Store

_NO_CATALOG = "no catalog is configured"


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that there is to say at `at` (aware).

    `outlook` and `histories` are worked out of no restores at all where the catalog does not
    answer; a finding then says so.
    """

    at: datetime
    facts: Facts
    findings: tuple[Finding, ...]
    outlook: Outlook
    histories: Mapping[tuple[Component, str], History]


class Objectives:
    """Whether what is there keeps the objectives of backup.yaml.

    Args:
        settings: The objectives, the sources and the rules of the monitor.
        stores: Every configured store.
        catalog: The catalog; one that keeps nothing where none is configured.
        audit: Where it is noted what people were told.
        divided: Says whether a source of backup.yaml is many things, each backed up by itself.
        clock: Gives the time (aware).
    """

    def __init__(
        self,
        *,
        settings: Settings,
        stores: Mapping[str, Store],
        catalog: Catalog,
        audit: Audit,
        divided: Callable[[str], bool],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._settings = settings
        self._stores = stores
        self._catalog = catalog
        self._audit = audit
        self._divided = divided
        self._clock = clock

    def components(self, chosen: Component | None = None) -> tuple[Component, ...]:
        """Return the components that have sources, or `chosen` alone if it has."""
        return tuple(
            one for one in Component if chosen in {None, one} and self._settings.sources_of(one)
        )

    def facts(self, component: Component | None = None, *, content: bool = True) -> Facts:
        """Return what is known of every source; with `content` also of what the full ones hold."""
        gathering = Gathering(
            stores=self._stores,
            catalog=self._catalog,
            now=self._clock(),
            compared_with=self._settings.monitor.compared_with if content else 0,
        )
        return gathering.facts(
            [
                Watched(one, source, divided=self._divided(source))
                for one in self.components(component)
                for source in self._settings.sources_of(one)
            ]
        )

    def recovery_points(self, component: Component | None = None) -> tuple[Finding, ...]:
        """Return what is to be said of the age, the copies and the content of the backups."""
        return self._judged(self.facts(component))

    def held(self, component: Component) -> Finding:
        """Return whether a component is inside its RPO: the finding of its worst source."""
        found = self._judged(self.facts(component, content=False))
        whole = (one for one in found if one.kind is Kind.RPO and not one.subject)
        # A component without sources has no finding of its own, but the one that says so.
        return next(whole)

    def forecasts(self) -> tuple[Finding, ...]:
        """Return whether everything could be restored within the recovery time objectives."""
        records, problem = self._restores()
        found = self._forecasts(self._outlook(self.facts(content=False), records))
        return (*found, *_untold(problem))

    def restore_tests(self, component: Component | None = None) -> tuple[Finding, ...]:
        """Return whether the restore of every source was tested lately enough."""
        records, problem = self._restores()
        return self._tests(self._histories(records, component), problem)

    def report(self, component: Component | None = None) -> Report:
        """Return all of this; the forecasts are of all components always."""
        records, problem = self._restores()
        every = self.facts()
        chosen = every
        if component is not None:
            ours = tuple(one for one in every.sources if one.component is component)
            chosen = Facts(ours, every.stores, every.silent, every.catalog_problem)
        seen = self._outlook(every, records)
        histories = self._histories(records, component)
        findings = (
            *self._judged(chosen),
            *self._forecasts(seen),
            *self._tests(histories, problem),
        )
        return Report(self._clock(), chosen, findings, seen, histories)

    def decide(
        self,
        findings: Sequence[Finding],
        *,
        covers: Callable[[Kind, str], bool] = telling.everything,
    ) -> Decision:
        """Return what of `findings` is to be told now; `covers` as `telling.decide` has it."""
        return telling.decide(
            self._clock(),
            findings,
            telling.read(self._stores),
            repeat=self._settings.monitor.repeat,
            covers=covers,
        )

    def keep(self, state: MonitorState) -> bool:
        """Keep what was told; return whether any store took it."""
        return telling.keep(self._stores, state)

    def note(self, tell: Sequence[Finding], *, actor: str) -> None:
        """Note in the audit trail what was told."""
        self._audit.note(
            "alert",
            telling.subject(tell),
            actor=actor,
            details={"findings": [f"{one.level.word}: {one.key}" for one in tell]},
            at=self._clock(),
        )

    def _judged(self, facts: Facts) -> tuple[Finding, ...]:
        return judging.judge(self._clock(), facts, Rules.of(self._settings))

    def _restores(self) -> tuple[Sequence[RestoreRecord], str]:
        """Return the newest restores, newest first; or none, and why not."""
        if isinstance(self._catalog, NullCatalog):
            return (), _NO_CATALOG
        try:
            return self._catalog.restores(limit=LOOKED_AT), ""
        except BackupError as error:
            return (), error.problem

    def _outlook(self, facts: Facts, records: Sequence[RestoreRecord]) -> Outlook:
        return outlook(
            records,
            [
                (one.component, one.source, one.proof.plain_size if one.proof else None)
                for one in facts.sources
            ],
        )

    def _forecasts(self, seen: Outlook) -> tuple[Finding, ...]:
        return recovery.judge_forecast(
            seen,
            self._settings.objectives.rto,
            warn_at=self._settings.monitor.warn_at / 100,
            components=self.components(),
        )

    def _histories(
        self, records: Sequence[RestoreRecord], component: Component | None
    ) -> dict[tuple[Component, str], History]:
        """Return the history of every source of backup.yaml, that of all its parts as one."""
        return {
            (one, source): history.of(records, source)
            for one in self.components(component)
            for source in self._settings.sources_of(one)
        }

    def _tests(
        self, histories: Mapping[tuple[Component, str], History], problem: str
    ) -> tuple[Finding, ...]:
        if problem:
            return (recovery.untold(problem),)
        return recovery.judge_tests(
            self._clock(), histories, most=self._settings.monitor.restore_tests
        )


def _untold(problem: str) -> tuple[Finding, ...]:
    if not problem or problem == _NO_CATALOG:
        return ()  # a forecast without measurements says so itself
    return (
        Finding(
            kind=Kind.FORECAST,
            level=Level.BREACH,
            component="",
            subject="catalog",
            problem=f"the catalog does not answer, so nothing is known to measure by ({problem})",
            remedy="Mend its database.",
        ),
    )
