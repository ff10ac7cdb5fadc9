"""Restoring one source, a set, or everything by the command; the spool is always left empty."""

# ruff: noqa: PLC0415 - `--help` must not pay for what the commands need

from __future__ import annotations

import sys
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from neuroca_backup.cli import render
from neuroca_backup.cli.interrupted import StandDown
from neuroca_backup.cli.reporting import line, report
from neuroca_backup.cli.restore_run import Order, Run, target_of
from neuroca_backup.errors import BackupError, NotFoundError
from neuroca_backup.model.identity import (
    RESTORE_ORDER,
    Component,
    attempt_token,
    is_part_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from neuroca_backup.engines import RestoreTarget
    from neuroca_backup.model.backup_set import BackupSet
    from neuroca_backup.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one source, for the table."""

    component: str
    source: str
    backup_id: str
    outcome: str
    size: int
    seconds: float


@dataclass
class Way:
    """How sources are restored; `errors` are those that did not stop the others.

    `saver` backs up what is overwritten. Throwaway servers are kept for somebody to look at where
    `wait` is set, and one by one removed at once where it is not.
    """

    runtime: Runtime
    saver: Runtime
    prefer: str | None
    dry_run: bool
    save: bool
    wait: bool
    errors: list[BackupError] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    _kept: list[RestoreTarget] = field(default_factory=list)

    @cached_property
    def together(self) -> str:
        """What the sources of this run are known by while they are held to each other."""
        return f"agreement-{attempt_token()}"

    def restore_one(self, order: Order, servers: ExitStack) -> None:
        """Restore one source; its error ends the command."""
        with StandDown(self.runtime) as stand_down:
            self._restore(order, stand_down, servers)

    def restore_set(self, found: BackupSet, order: Order, servers: ExitStack) -> None:
        """Restore every source of a set, whatever becomes of the others."""
        before = len(self.errors)
        self._set(found, order, servers)
        failed = len(self.errors) - before
        self._agree()
        wanted = len(found.sources)
        done = wanted - failed
        render.say(f"\n{done} of {wanted} sources of {found.set_id} are done.")

    def restore_all(self, order: Order, servers: ExitStack) -> None:
        """Restore all sources of all components in the order in which a system comes back.

        Of each component the newest complete set; where there is none, the newest verified backup
        of each source, which is said: they are not of one moment.
        """
        for component in RESTORE_ORDER:
            if not self.runtime.settings.sources_of(component):
                continue
            render.say(f"\n{component.value}")
            try:
                found = self.runtime.set_to_restore("latest", component=component)
            except BackupError as error:
                line(
                    f"warning: {error.problem}. The newest verified backup of each source is taken "
                    "instead; they are not of one moment."
                )
                self._one_by_one(component, order, servers)
            else:
                self._set(found, order, servers)
        self._agree()
        render.restored(self.results)

    def keep(self) -> None:
        """Keep the throwaway servers until somebody has looked at them."""
        if not self.wait or not self._kept:
            render.say("The sandbox is removed.")
            return
        for target in self._kept:
            endpoint = target.endpoint
            if endpoint.directory is not None:
                render.say(f"The files are kept below {endpoint.label}, which only you may read.")
                continue
            render.say(
                f"The sandbox is kept: {endpoint.label}, user {endpoint.user}; the password is in "
                "its servers.json."
            )
        render.say("Press Enter to remove it.")
        sys.stdin.readline()

    def _set(self, found: BackupSet, order: Order, servers: ExitStack) -> None:
        render.say(f"Set {found.set_id} of {found.component}: {', '.join(found.sources)}")
        backups = {source: member.backup_id for source, member in found.members.items()}
        self._several(found.component, backups, order, servers)
        for source in found.missing:
            lost = NotFoundError(
                f"The set {found.set_id} has no backup of {source}",
                remedy="Restore that source by itself, or choose an older set.",
                source=source,
            )
            self._failed(lost, found.component, source)

    def _one_by_one(self, component: Component, order: Order, servers: ExitStack) -> None:
        from neuroca_backup.services.inventory import Inventory

        names: dict[str, str | None] = {}
        wanted = self.runtime.settings.sources_of(component)
        try:
            held = [
                name for one, name in Inventory(self.runtime.stores).sources() if one is component
            ]
        except BackupError as error:
            for source in wanted:
                self._failed(error, component, source)
            return
        for source in wanted:
            parts = [name for name in held if is_part_of(name, source)]
            names |= dict.fromkeys(parts or [source])
        self._several(component, names, order, servers)

    def _several(
        self,
        component: Component,
        backups: Mapping[str, str | None],
        order: Order,
        servers: ExitStack,
    ) -> None:
        """Restore sources of one component, whatever becomes of the others."""
        if order.wait_for_retrieval and not self.dry_run:
            self._ask_ahead(backups, order)
        try:
            with StandDown(self.runtime) as stand_down:
                for source, backup_id in backups.items():
                    render.say(f"\n{source}")
                    try:
                        one = replace(order, source=source, backup_id=backup_id)
                        self._restore(one, stand_down, servers)
                    except BackupError as error:
                        self._failed(error, component, source)
        except BackupError as error:  # a service that was not started again
            report(error)
            self.errors.append(error)

    def _ask_ahead(self, backups: Mapping[str, str | None], order: Order) -> None:
        """Ask for all that lies in archives, so that one source does not wait behind another."""
        for source, backup_id in backups.items():
            run = Run(self.runtime, lambda: self.saver.safety, StandDown(self.runtime))
            # What is wrong with it is told when its turn has come.
            with suppress(BackupError):
                one = replace(order, source=source, backup_id=backup_id)
                self.runtime.retrievals.ask(run.plan(one, prefer=self.prefer), tier=order.tier)

    def _restore(self, order: Order, stand_down: StandDown, servers: ExitStack) -> None:
        """Restore one source; a throwaway server for it lives as long as `servers`, or less."""
        run = Run(self.runtime, lambda: self.saver.safety, stand_down)
        with ExitStack() as at_once:
            at_once.enter_context(self.runtime.spool.held(run.restore_id))
            at_once.callback(self.runtime.restores.clear, run.restore_id)
            plan = run.plan(order, prefer=self.prefer)
            run.propose(order, plan, save=self.save)
            if not self.dry_run:
                run.retrieve(order, plan)
            home = servers if self.wait else at_once
            target, label = home.enter_context(target_of(self.runtime, order, plan))
            done = run.restore(
                plan,
                target,
                label=label,
                dry_run=self.dry_run,
                save=self.save,
                speed=not order.throwaway,
            )
            if not self.dry_run:
                fetched = self.runtime.restores.fetched(done)
                self.runtime.agreement.note(self.together, done, fetched)
            self._kept.append(target)
            self.results.append(
                Result(
                    component=done.component,
                    source=order.source,
                    backup_id=done.backup_id,
                    outcome="can be restored" if self.dry_run else "restored",
                    size=done.plain_size,
                    seconds=sum(run.seconds.values()),
                )
            )

    def _agree(self) -> None:
        """Hold the restored sources to each other."""
        if self.dry_run:
            return
        agreement = self.runtime.agreement
        try:
            for note in agreement.require(self.together):
                render.note(note)
        except BackupError as error:
            report(error)
            self.errors.append(error)
        finally:
            agreement.clear(self.together)

    def _failed(self, error: BackupError, component: Component, source: str) -> None:
        report(error)
        self.errors.append(error)
        self.results.append(
            Result(component.value, source, "-", f"FAILED: {error.problem}", size=0, seconds=0)
        )
