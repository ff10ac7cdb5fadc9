"""What of a restore lies in archives alone, and asking for it; asking again does no harm."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from neuroca_backup.errors import ArchivedError, BackupError, DamagedError
from neuroca_backup.model.identity import BackupRef
from neuroca_backup.model.manifest import Manifest
from neuroca_backup.model.quantity import duration, size
from neuroca_backup.model.retrieval import RetrievalTier, Wait, expected
from neuroca_backup.model.tickets import RestorePlan
from neuroca_backup.services import past, pipeline
from neuroca_backup.services.inventory import read_manifest, read_verification
from neuroca_backup.stores import Archiving, ObjectStat, Store

log = logging.getLogger(__name__)

# How long a retrieved copy stays readable: longer than any restore, and its failed tries, take.
DAYS = 7


@dataclass(frozen=True, slots=True)
class Retrieval:
    """What of a restore has to be retrieved first: how many objects, and their bytes.

    `under_way` of them were asked for. `by_class` has the objects by storage class.
    """

    objects: int = 0
    size: int = 0
    under_way: int = 0
    by_class: Mapping[str, int] = field(default_factory=dict)
    stores: tuple[str, ...] = ()

    def wait(self, tier: RetrievalTier) -> Wait:
        """Return how long AWS takes for all of it.

        Raises:
            ConfigurationError: One of the archives has no such tier.
        """
        waits = [expected(one, tier) for one in self.by_class]
        return Wait(
            max((one.least for one in waits), default=timedelta()),
            max((one.most for one in waits), default=timedelta()),
        )

    def words(self, tier: RetrievalTier) -> str:
        """Return it in a sentence, "" where nothing has to be retrieved."""
        if not self.objects:
            return ""
        wait = self.wait(tier)
        least, most = (duration(one.total_seconds()) for one in (wait.least, wait.most))
        under_way = f", {self.under_way} of them asked for already" if self.under_way else ""
        count = "1 object lies" if self.objects == 1 else f"{self.objects} objects lie"
        return (
            f"{count} ({size(self.size)}) only in {' and '.join(self.by_class)} of "
            f"{', '.join(self.stores)}{under_way}: readable {least} to {most} after it was asked "
            f"for with the tier {tier.value}"
        )


@dataclass(frozen=True, slots=True)
class _Lying:
    """One object that no store can read at once, and the store that has it in an archive."""

    store: str
    found: ObjectStat


class Retrievals:
    """Finds what only archives have, and asks for it.

    Args:
        stores: All stores by name.
        workers: Objects asked for at once.
    """

    def __init__(self, *, stores: Mapping[str, Store], workers: int) -> None:
        self._stores = stores
        self._workers = workers

    def look(self, plan: RestorePlan) -> Retrieval:
        """Return what has to be retrieved before `plan` can be carried out.

        A store that does not answer, and a copy that was found damaged, does not count: what is
        then only in an archive is to be retrieved.
        """
        return self._sum(self._lying(plan))

    def ask(self, plan: RestorePlan, *, tier: RetrievalTier, days: int = DAYS) -> Retrieval:
        """Ask for all that lies only in archives, and return what is still not readable.

        Raises:
            ConfigurationError: An archive does not have this tier.
            BackupError: A store's own; what was asked for by then is under way.
        """

        def one(lying: _Lying) -> _Lying:
            store = self._stores[lying.store]
            if lying.found.retrieving or not isinstance(store, Archiving):
                return lying
            found = store.retrieve(lying.found.key, tier=tier, days=days)
            return _Lying(lying.store, found)

        asked = pipeline.in_parallel(one, list(self._lying(plan)), workers=self._workers)
        return self._sum(lying for lying in asked if not lying.found.readable)

    def _sum(self, lying: Iterable[_Lying]) -> Retrieval:
        objects = total = under_way = 0
        by_class: dict[str, int] = {}
        stores: dict[str, None] = {}
        for one in lying:
            objects += 1
            total += one.found.size
            under_way += one.found.retrieving
            by_class[one.found.storage_class] = by_class.get(one.found.storage_class, 0) + 1
            stores[one.store] = None
        return Retrieval(objects, total, under_way, by_class, tuple(stores))

    def _lying(self, plan: RestorePlan) -> Iterator[_Lying]:
        for ref in plan.refs:
            manifest = self._manifest(plan, ref)
            if manifest is not None:
                yield from self._of(plan, manifest)

    def _of(self, plan: RestorePlan, manifest: Manifest) -> Iterator[_Lying]:
        """Yield what of one backup is only in archives; each store is asked for what is missing."""
        missing = {manifest.key_of(one): one.stored.size for one in manifest.members}
        archived: dict[str, _Lying] = {}
        for name in plan.stores:
            if not missing:
                return
            try:
                for found in self._listed(self._stores[name], manifest, missing):
                    if found.readable:
                        del missing[found.key]
                        archived.pop(found.key, None)
                    else:
                        archived.setdefault(found.key, _Lying(name, found))
            except BackupError as error:
                log.warning("%s is left out: %s", name, error.problem)
        yield from archived.values()

    def _listed(
        self, store: Store, manifest: Manifest, wanted: Mapping[str, int]
    ) -> Iterator[ObjectStat]:
        """Yield what `store` has, whole as far as is known, of the keys `wanted`."""
        damaged = _damaged(store, manifest.ref)
        folders = {key.rsplit("/members/", 1)[0] for key in wanted}
        for folder in sorted(folders):
            for found in list(store.list(folder)):
                if wanted.get(found.key) == found.size and found.key not in damaged:
                    # A listing may not know yet what was retrieved.
                    yield found if found.readable else store.stat(found.key)

    def _manifest(self, plan: RestorePlan, ref: BackupRef) -> Manifest | None:
        for name in plan.stores:
            try:
                return read_manifest(self._stores[name], ref).manifest
            except BackupError as error:
                log.debug("%s cannot show %s: %s", name, ref.backup_id, error.problem)
        return None


def refusal(plan: RestorePlan, found: Retrieval) -> ArchivedError:
    """Return the error of a restore that has to wait, and was not told that it may."""
    return ArchivedError(
        f"{plan.backup_id} cannot be read at once: {found.words(RetrievalTier.STANDARD)}",
        remedy="Retrieve it: repeat the command with --wait-for-retrieval, or choose a tier under "
        f"Retrieval in the form. It costs what AWS charges for the tier. {past.REMEDY}",
        backup_id=plan.backup_id,
        objects=found.objects,
    )


def _damaged(store: Store, ref: BackupRef) -> frozenset[str]:
    """Return the keys of what the last check of a copy has found to be damaged."""
    try:
        check = read_verification(store, ref)
    except DamagedError:
        return frozenset()
    return frozenset(finding.key for finding in check.findings) if check else frozenset()
