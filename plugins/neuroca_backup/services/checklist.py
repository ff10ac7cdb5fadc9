"""What is looked at before a restore: space, integrity, versions, the state of the target.

Each check changes nothing, may be repeated, and raises where the restore must not go on.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from neuroca_backup.engines import Engine, RestoreTarget
from neuroca_backup.errors import (
    ArchivedError,
    BackupError,
    DamagedError,
    NotFoundError,
    PermanentError,
    TransientError,
)
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.identity import BackupRef, Component
from neuroca_backup.model.status import Finding, Level, Verification
from neuroca_backup.model.tickets import RestorePlan
from neuroca_backup.services import planning
from neuroca_backup.services.quiesce import Quiesce
from neuroca_backup.services.restore import Restores
from neuroca_backup.services.verify import Verifier
from neuroca_backup.spool import Spool
from neuroca_backup.stores import Store


@dataclass(frozen=True, slots=True)
class Checklist:
    """The checks as methods; each returns notes for people and for the record."""

    engine: Callable[[str], Engine]
    stores: Mapping[str, Store]
    spool: Spool
    verifier: Verifier
    restores: Restores
    quiesce: Callable[[Component], Quiesce]

    def space(self, plan: RestorePlan, target: RestoreTarget) -> Sequence[str]:
        """Hold the room in the spool, and at the target where it can be asked, to the plan's size.

        Raises:
            SpoolError: The spool has too little room.
            PermanentError: The target has too little.
        """
        self.spool.require_free(plan.plain_size)
        notes = [f"The spool has room for the {plan.plain_size:,} bytes of {plan.backup_id}"]
        place = _local(target.endpoint, self.spool.sandbox(plan.restore_id))
        if place is None:
            where = target.endpoint.label
            return (*notes, f"{where} cannot be asked for its room: see that it has as much")
        spool = _existing(self.spool.root)
        both = spool.stat().st_dev == place.stat().st_dev
        needed = plan.plain_size * (2 if both else 1)
        free = shutil.disk_usage(place).free
        if free < needed:
            also = ", half of it for the spool on the same disk" if both else ""
            raise PermanentError(
                f"The target's disk at {place} has {free:,} bytes free, {needed:,} are needed"
                + also,
                remedy="Free space there, or restore to another place.",
                path=str(place),
            )
        return (*notes, f"The target's disk at {place} has {free:,} bytes free")

    def integrity(self, plan: RestorePlan) -> Sequence[str]:
        """Read back what the stores hold of every link: stored digests, and that keys are there.

        A store whose copy is damaged is named, and the next one is read. No key is used.

        Raises:
            DamagedError: No store has a whole copy, nor do they together; names the earlier backup
                that could be restored. With `allow_older` that is a note.
            TransientError: The stores that answered do not have it whole.
        """
        notes: list[str] = []
        for ref in plan.refs:
            try:
                notes += self._read_back(ref, plan)
            except DamagedError as error:
                stores = {name: self.stores[name] for name in plan.stores}
                earlier = planning.older(stores, plan, error, bad=(ref.backup_id,))
                if earlier is None or not plan.allow_older:
                    raise planning.refusal(error, earlier, source=plan.source) from None
                return (*notes, earlier.passed_over[-1], f"{earlier.backup_id} will be fetched")
        return notes

    def versions(self, plan: RestorePlan, target: RestoreTarget) -> Sequence[str]:
        """Return the engine's notes on whether the target can take this backup.

        Raises what the engine's `preflight` raises. Where no store can show the backup, and an
        older one is allowed, that one is held to the target.
        """
        try:
            notes = self.restores.versions(plan, target)
        except (DamagedError, NotFoundError) as error:
            stores = {name: self.stores[name] for name in plan.stores}
            earlier = planning.older(stores, plan, error, bad=(plan.backup_id,))
            if earlier is None or not plan.allow_older:
                raise
            return self.versions(earlier, target)
        return (*notes, f"{target.endpoint.label} can take {plan.backup_id}")

    def state(self, plan: RestorePlan, target: RestoreTarget) -> Sequence[str]:
        """Document what is there before: the target's version, and in place its services' states.

        Raises:
            BackupError: The target or a service cannot be asked.
        """
        endpoint = target.endpoint
        notes = []
        if endpoint.directory is not None:
            notes.append(f"{endpoint.label} is absent or empty")
        elif endpoint.host:
            version = self.engine(plan.engine).probe(endpoint)
            notes.append(f"{endpoint.label} runs version {version}")
        if target.replace:
            states = self.quiesce(Component(plan.component)).look()
            notes += [f"The service {name} is {state}" for name, state in states.items()]
        return notes

    def _read_back(self, ref: BackupRef, plan: RestorePlan) -> Sequence[str]:
        notes: list[str] = []
        damage: dict[str, set[str]] = {}
        silent: list[BackupError] = []
        archived = False
        for name in plan.stores:
            try:
                found = self.verifier.examine(ref, name, level=Level.INTACT)
            except ArchivedError:
                notes.append(f"{name} has {ref.backup_id} in an archive, and was not read back")
                archived = True
                continue
            except TransientError as error:
                notes.append(f"{name} did not answer: {error.problem}")
                silent.append(error)
                continue
            findings = _harmful(ref, found)
            if not findings:
                seconds = f"{found.bytes_read:,} bytes in {found.seconds:.1f} s"
                return (*notes, f"{ref.backup_id} is intact in {name} ({seconds})")
            damage[name] = {finding.key for finding in findings}
            first = findings[0]
            more = f" and {len(findings) - 1} more" if len(findings) > 1 else ""
            notes.append(f"{name} is damaged: {first.key}: {first.problem}{more}")
        if _together(ref, damage):
            return (
                *notes,
                f"{ref.backup_id} is whole, but only in {' and '.join(damage)} together",
            )
        if archived:
            return (*notes, f"{ref.backup_id} is retrieved first; fetch checks every byte")
        problem = f"No store has {ref.backup_id} whole: {'; '.join(notes)}"
        if silent and not plan.allow_older:
            raise TransientError(
                problem,
                remedy="It is tried again; mend the store that does not answer, or restore another "
                "backup.",
                backup_id=ref.backup_id,
            )
        raise DamagedError(problem, remedy="Restore an older backup.", backup_id=ref.backup_id)


def _harmful(ref: BackupRef, found: Verification) -> list[Finding]:
    """Return the findings that a restore would meet; it reads no results of earlier checks."""
    unread = {ref.verification_key, ref.checked_key}
    return [finding for finding in found.findings if finding.key not in unread]


def _together(ref: BackupRef, damage: Mapping[str, set[str]]) -> bool:
    """Return whether every member is sound in a store whose manifest and keys are sound, too."""
    usable = [
        keys
        for keys in damage.values()
        if not any(key == ref.manifest_key or key.endswith("/keys.json") for key in keys)
    ]
    return len(usable) > 1 and not set.intersection(*usable)


def _local(endpoint: Endpoint, sandbox: Path) -> Path | None:
    """Return where on this machine a target's files go; None where that cannot be asked."""
    if endpoint.directory is not None:
        return _existing(endpoint.directory)
    if "data_directory" in endpoint.extra and not endpoint.host:
        return _existing(Path(str(endpoint.extra["data_directory"])))
    return _existing(sandbox) if sandbox.exists() else None


def _existing(path: Path) -> Path:
    """Return `path`, or the nearest folder above it that there is."""
    return next(one for one in (path, *path.parents) if one.exists())
