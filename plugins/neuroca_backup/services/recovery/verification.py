"""The points of a recovered system: its databases, tiers and configuration asked once more.

Each source was compared when it was restored. Here the whole is asked, after all of it is back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from neuroca_backup import engines
from neuroca_backup.engines import Question
from neuroca_backup.errors import BackupError, NotFoundError
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.identity import BackupRef, Component
from neuroca_backup.services import asking
from neuroca_backup.services.inventory import Inventory
from neuroca_backup.services.recovery.plan import RecoveryPlan, recovered
from neuroca_backup.settings import RecoverySettings
from neuroca_backup.stores import Store

# The points that are about a component; their names are the ids of the tasks, and in the journal.
POINTS: Mapping[str, Component] = {
    "verify.databases": Component.DATABASE,
    "verify.memory_tiers": Component.MEMORY_TIERS,
    "verify.configuration": Component.CONFIGURATION,
}
PERFORMANCE, SECURITY = "verify.performance", "verify.security"
FUNCTIONALITY = "verify.functionality"


def required_checks(plan: RecoveryPlan, recovery: RecoverySettings) -> tuple[str, ...]:
    """Return the checks that have to pass before the system counts as back.

    Those that a drill cannot ask are not among them.
    """
    back = recovered(plan.sources)
    points = [name for name, component in POINTS.items() if component in back]
    if plan.drill:
        return tuple(points)
    return (
        *points,
        *(f"{FUNCTIONALITY}:{check.name}" for check in recovery.checks),
        PERFORMANCE,
        SECURITY,
    )


@dataclass(frozen=True, slots=True)
class Verification:
    """Asks restored sources where they are now."""

    stores: Mapping[str, Store]

    def source(
        self,
        ref: BackupRef,
        endpoint: Endpoint,
        *,
        questions: Sequence[Question],
        speed: bool,
    ) -> asking.Outcome:
        """Ask what was restored from `ref` whether it works, and with `speed` as quickly as before.

        What cannot be asked is a note; a server that does not answer is a problem.
        """
        manifest = Inventory(self.stores).look(ref).manifest
        if manifest is None:
            raise NotFoundError(
                f"No store that answers has the manifest of {ref.backup_id}",
                remedy="Clear this task once one of them does.",
                backup_id=ref.backup_id,
            )
        engine = engines.named(manifest.engine)
        facts = manifest.dump.facts
        try:
            answers = asking.ask(engine, endpoint, facts, questions)
        except BackupError as error:
            return asking.Outcome((), (f"it could not be asked: {error.problem}",))
        if not answers:
            return asking.Outcome((f"not asked: {engine.kind} has no questions",), ())
        return asking.judge(answers, facts.get(asking.FACT, {}), speed=speed)
