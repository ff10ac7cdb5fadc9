"""`config-export` and `config-import`: the configuration as files, checked before it is used."""

# ruff: noqa: PLC0415 - `--help` must not pay for what the commands need

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from neuroca_backup.cli import render
from neuroca_backup.cli.approving import ApprovedBy, Reason, require_export
from neuroca_backup.cli.reporting import line
from neuroca_backup.cli.session import Keys, Session
from neuroca_backup.errors import ConfigurationError
from neuroca_backup.model.identity import Component, attempt_token, set_id

if TYPE_CHECKING:
    from neuroca_backup.engines import Restorable, RestoreTarget
    from neuroca_backup.runtime import Runtime
    from neuroca_backup.services.exports import Exported

Sources = Annotated[
    list[str] | None,
    typer.Option(
        "--source", metavar="NAME", help="This source alone; may be repeated. Default: all."
    ),
]


def config_export(
    context: typer.Context,
    *,
    output: Annotated[
        Path,
        typer.Option(help="A directory to be made, or one file with a name that ends in .tar."),
    ],
    source: Sources = None,
    approved_by: ApprovedBy = None,
    reason: Reason = None,
) -> None:
    """Export the configuration in clear, secrets included.

    Only you may read it. Encrypt it before it leaves this machine, or use `backup`, which does.
    """
    from neuroca_backup.services import exports

    runtime = Session.of(context).runtime(Keys.NONE)
    exports.require_free(output)
    subjects = [runtime.subject(name) for name in _names(runtime, source)]
    require_export(
        runtime,
        {one.name: one.classification for one in subjects},
        approved_by=approved_by,
        reason=reason,
    )
    for subject in subjects:
        subject.engine.probe(subject.endpoint)
    for manifest in exports.write(subjects, output):
        engine = runtime.subject(manifest.source).engine
        render.say(f"{manifest.source}: {engine.summary(manifest)}")
        for note in manifest.dump.notes:
            render.note(note)
        runtime.audit.note("export", manifest.source, details={"to": str(output)})
    render.say(f"Exported to {output}, in clear; only its owner may read it.")


def config_import(  # noqa: PLR0913 - one argument an option
    context: typer.Context,
    *,
    input_: Annotated[Path, typer.Option("--input", help="What config-export has written.")],
    source: Sources = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PART",
            help="Only this: a section or a path; connection=ID, variable=KEY or pool=NAME. May "
            "be repeated; other sources are left out.",
        ),
    ] = None,
    diff: Annotated[
        bool,
        typer.Option(
            "--diff",
            help="Name every path that changes, and on a terminal the lines, secrets masked.",
        ),
    ] = False,
    target_directory: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Import the files below this directory.")
    ] = None,
    target_connection: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Import Airflow's part to the database of this connection"),
    ] = None,
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Replace the configuration of this machine.")
    ] = False,
    confirm: Annotated[
        str | None, typer.Option(metavar="WORD", help="Needed by --in-place: configuration.")
    ] = None,
    save: Annotated[
        bool,
        typer.Option(
            "--save/--no-save", help="Back up first what --in-place overwrites without keeping it."
        ),
    ] = True,
) -> None:
    """Import an exported configuration, or show what that would change.

    Without a target nothing is touched. Everything is read and checked before the first change,
    and compared before it takes its place; files that are replaced are kept beside.
    """
    from neuroca_backup.services import exports

    elsewhere = target_directory is not None or target_connection is not None
    if in_place and elsewhere:
        raise typer.BadParameter("Give a target, or --in-place: one of them.")
    if in_place and confirm != Component.CONFIGURATION:
        raise typer.BadParameter(
            "--in-place replaces the configuration of this machine; add --confirm configuration."
        )
    session = Session.of(context)
    runtime = session.runtime(Keys.SEAL if in_place and save else Keys.NONE)
    target = _Target(runtime, target_directory, target_connection, in_place=in_place)
    restore_id = "restore-" + set_id(at=datetime.now(UTC), run=f"import {attempt_token()}")
    try:
        runtime.spool.claim(restore_id, "import")
        work = runtime.spool.work(restore_id)
        with exports.read(input_, work) as found:
            jobs = list(_jobs(found, source, only, target, work))
            if not jobs:
                raise ConfigurationError(
                    f"{input_} has nothing for that target",
                    remedy=f"It holds: {', '.join(one.manifest.source for one in found)}.",
                    value=str(input_),
                )
            for job in jobs:
                job.show(details=diff)
            if not (in_place or elsewhere):
                render.say(
                    "Nothing was touched. Apply it with --target-directory, --target-connection "
                    "or --in-place --confirm configuration."
                )
                return
            for job in jobs:
                job.apply(runtime, restore_id, save=save)
    finally:
        runtime.restores.clear(restore_id)


@dataclass(frozen=True, slots=True)
class _Target:
    """Where the sources of an export go; without any place what in-place would do is shown."""

    runtime: Runtime
    directory: Path | None
    connection: str | None
    in_place: bool

    def of(self, exported: Exported) -> RestoreTarget | None:
        """Return the target of one source, or None where it is not for that."""
        from neuroca_backup.engines import RestoreTarget
        from neuroca_backup.services import targets

        kind, name = exported.manifest.engine, exported.manifest.source
        files = targets.of_files(kind)
        if self.directory is None and self.connection is None:
            own = self.runtime.endpoint(name)
            return RestoreTarget(targets.with_default_port(own, kind), replace=True)
        if files and self.directory is not None:
            return RestoreTarget(targets.directory(self.directory, kind))
        if not files and self.connection is not None:
            endpoint = self.runtime.connections.endpoint(self.connection)
            endpoint = targets.with_default_port(endpoint, kind)
            for note in targets.refuse_production(
                endpoint, settings=self.runtime.settings, connections=self.runtime.connections
            ):
                line(f"warning: {note}")
            return RestoreTarget(endpoint)
        return None


@dataclass(frozen=True, slots=True)
class _Job:
    """One source on its way to its target."""

    exported: Exported
    backup: Restorable
    target: RestoreTarget

    def show(self, *, details: bool) -> None:
        """Do the preflight, print its notes, and with `details` every path that changes."""
        render.say(f"{self.exported.manifest.source} to {self.target.endpoint.label}")
        for note in self.exported.engine.preflight(self.backup, self.target):
            render.note(note)
        if not details:
            return
        from neuroca_backup.services.classification import Act, allows

        # What is masked may be masked too little: into a file or a log no lines of such data go.
        decision = allows(self.exported.manifest.classification, Act.SHOW_CONTENT)
        lines = sys.stdout.isatty() or decision.allowed
        for text in _details(self.exported, self.backup, self.target, lines=lines):
            render.say(text)
        if not lines:
            line(f"Only the paths are shown. {decision.reason}. {decision.remedy}")

    def apply(self, runtime: Runtime, restore_id: str, *, save: bool) -> None:
        """Load, compare, publish."""
        engine, manifest = self.exported.engine, self.exported.manifest
        render.say(f"{manifest.source} to {self.target.endpoint.label}")
        if self.target.replace:
            for note in self._saved(runtime, restore_id, wanted=save):
                render.note(note)
        notes = list(engine.load(self.backup, self.target))
        differences = list(engine.compare(self.backup, self.target))
        if differences:
            from neuroca_backup.errors import ComparisonError

            raise ComparisonError(
                f"The loaded copy of {manifest.source} differs: {differences[0]}"
                + (f" and {len(differences) - 1} more" if differences[1:] else ""),
                remedy="The target was not changed. Find out what changed the copy, and repeat.",
                differences=len(differences),
            )
        for note in (*notes, *engine.publish(self.backup, self.target)):
            render.note(note)
        render.say(f"Imported {engine.summary(manifest)}")

    def _saved(self, runtime: Runtime, restore_id: str, *, wanted: bool) -> Sequence[str]:
        from neuroca_backup.model.tickets import RestorePlan

        manifest = self.exported.manifest
        plan = RestorePlan(
            restore_id=restore_id,
            backup_id=manifest.backup_id,
            component=manifest.component.value,
            source=manifest.source,
            engine=manifest.engine,
            stores=(),
            plain_size=manifest.plain_size,
            members=len(manifest.members),
            taken_at=manifest.started_at.isoformat(),
            verified=False,
            chain=(manifest.backup_id,),
        )
        at = datetime.now(UTC)
        return runtime.safety.save(plan, self.target, at=at, wanted=wanted)


def _names(runtime: Runtime, given: Sequence[str] | None) -> list[str]:
    """Return the sources to export.

    Raises:
        ConfigurationError: There are none, or one is of another component.
    """
    known = list(runtime.settings.sources_of(Component.CONFIGURATION))
    if not known:
        raise ConfigurationError(
            "backup.yaml has no source of the component configuration",
            remedy="Write one under `sources` with `component: configuration`; "
            "docs/reference/filetree.md shows how.",
            path="sources",
        )
    for name in given or ():
        if name not in known:
            raise ConfigurationError(
                f"{name!r} is no source of the configuration",
                remedy=f"Use one of: {', '.join(known)}.",
                value=name,
            )
    return list(dict.fromkeys(given or known))


def _jobs(
    found: Sequence[Exported],
    sources: Sequence[str] | None,
    only: Sequence[str] | None,
    target: _Target,
    work: Path,
) -> Iterator[_Job]:
    held = [one.manifest.source for one in found]
    for name in sources or ():
        if name not in held:
            raise ConfigurationError(
                f"The export has no source {name!r}",
                remedy=f"It holds: {', '.join(held)}.",
                value=name,
            )
    for one in found:
        if sources and one.manifest.source not in sources:
            continue
        parts = [part for part in only or () if _is_part_of(part, one)]
        place = target.of(one)
        if place is None or (only and not parts):
            line(f"{one.manifest.source} is left out: it is not for that target, or not chosen.")
            continue
        yield _Job(one, one.restorable(work, parts), place)


def _is_part_of(part: str, exported: Exported) -> bool:
    """Return whether `part` is in the words of the engine that made this source."""
    from neuroca_backup.services import targets

    return targets.of_files(exported.manifest.engine) != (not part.startswith("/") and "=" in part)


def _details(
    exported: Exported, backup: Restorable, target: RestoreTarget, *, lines: bool
) -> Iterator[str]:
    from neuroca_backup.services import targets

    if targets.of_files(exported.manifest.engine):
        yield from _file_details(backup, target, lines=lines)
        return
    from neuroca_backup.engines.airflow_metadata import restore

    for change in restore.preview(backup, target):
        columns = f" ({', '.join(change.columns)})" if change.columns else ""
        yield f"  {change.kind:<8} {change}{columns}"


def _file_details(backup: Restorable, target: RestoreTarget, *, lines: bool) -> Iterator[str]:
    from neuroca_backup.engines.filetree import restore
    from neuroca_backup.trees.entries import shown
    from neuroca_backup.trees.unified import Masking, difference

    masking = Masking()
    for change in restore.preview(backup, target, contents=lines):
        aspects = ", ".join(change.aspects) if change.kind == "changed" else ""
        yield f"  {change.kind:<8} {shown(str(change.place))}" + (
            f" ({aspects})" if aspects else ""
        )
        if lines:
            yield from difference(change, masking)
