"""Saving what a restore in place would overwrite: a backup like any other, made just before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from neuroca_backup.engines import Engine, RestoreTarget
from neuroca_backup.errors import BackupError, EmptySourceError, PermanentError, TransientError
from neuroca_backup.model.identity import BackupRef, Component, set_id
from neuroca_backup.model.tickets import RestorePlan


@dataclass(frozen=True, slots=True)
class Safety:
    """Backs a source up through the normal pipeline, before a restore takes its place.

    `back_up` makes and verifies a full backup, given which one and the restore's id.
    """

    engine: Callable[[str], Engine]
    back_up: Callable[[BackupRef, str], None]

    def save(
        self, plan: RestorePlan, target: RestoreTarget, *, at: datetime, wanted: bool
    ) -> tuple[str, ...]:
        """Back up what `plan` would overwrite and verify it; return notes that name the backup.

        `at` is when the restore began: with the restore's id it makes the backup's id, so that a
        repeat finds the backup instead of making another one. An engine that keeps what it
        replaces needs no backup; neither does an empty source, nor one that nobody wants saved.

        Raises:
            TransientError: The source or a store did not answer; nothing was overwritten.
            PermanentError: It cannot be backed up or verified; nothing was overwritten.
        """
        if not target.replace:
            return ()
        if self.engine(plan.engine).keeps:
            return (f"What {plan.source} holds is kept beside; it needs no backup first",)
        if not wanted:
            return (f"What {plan.source} held was not saved: the person who restored declined",)
        ref = BackupRef.of(
            set_id(at=at, run=f"saved before {plan.restore_id}"),
            Component(plan.component),
            plan.source,
        )
        try:
            self.back_up(ref, plan.restore_id)
        except EmptySourceError:
            return (f"{plan.source} is empty: there was nothing to save",)
        except BackupError as error:
            kind = TransientError if isinstance(error, TransientError) else PermanentError
            raise kind(
                f"{plan.source} could not be saved before it is overwritten, so nothing was "
                f"touched: {error.problem}",
                remedy=f"{error.remedy} If the source is dead, or not worth saving, restore "
                "without saving it: save_first off in the form, --no-save in the command.",
                source=plan.source,
            ) from error
        return (f"What {plan.source} held before is saved and verified as {ref.backup_id}",)
