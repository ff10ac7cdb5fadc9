"""`model-export` and `model-import`: models as files, checked before they are used."""

# ruff: noqa: PLC0415 - `--help` must not pay for what the commands need

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from neuroca_backup.cli import render
from neuroca_backup.cli.approving import ApprovedBy, Reason, require_export
from neuroca_backup.cli.session import Keys, Session
from neuroca_backup.errors import ComparisonError, ConfigurationError, NotFoundError
from neuroca_backup.model.identity import Component, attempt_token, set_id

if TYPE_CHECKING:
    from neuroca_backup.engines import Restorable, RestoreTarget
    from neuroca_backup.runtime import Runtime
    from neuroca_backup.services.backup import Subject
    from neuroca_backup.services.exports import Exported

Models = Annotated[
    list[str] | None,
    typer.Option("--model", metavar="NAME", help="This model alone; may be repeated. Default: all"),
]


def model_export(
    context: typer.Context,
    *,
    output: Annotated[
        Path,
        typer.Option(help="A directory to be made, or one file with a name that ends in .tar."),
    ],
    model: Models = None,
    approved_by: ApprovedBy = None,
    reason: Reason = None,
) -> None:
    """Export the weights, checkpoints and artefacts of models.

    In clear and not verified against any store: `backup` is what encrypts and keeps them. On any
    error there is no export.
    """
    from neuroca_backup.services import exports

    runtime = Session.of(context).runtime(Keys.NONE)
    exports.require_free(output)
    subjects = _subjects(runtime, model or ())
    require_export(
        runtime,
        {one.name: one.classification for one in subjects},
        approved_by=approved_by,
        reason=reason,
    )
    for manifest in exports.write(subjects, output):
        engine = runtime.subject(manifest.source).engine
        render.say(f"{manifest.source}: {engine.summary(manifest)}")
        for note in manifest.dump.notes:
            render.note(note)
        runtime.audit.note("export", manifest.source, details={"to": str(output)})
    render.say(f"Exported to {output}, in clear; only its owner may read it.")


def model_import(
    context: typer.Context,
    *,
    input_: Annotated[Path, typer.Option("--input", help="What model-export has written.")],
    model: Models = None,
    target_directory: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Import below this directory, a model's name each."),
    ] = None,
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Import to the roots that the models came from.")
    ] = False,
    confirm: Annotated[
        str | None, typer.Option(metavar="WORD", help="Needed by --in-place: models.")
    ] = None,
) -> None:
    """Import exported models, or show what that would change.

    Without a target nothing is touched. Every byte is read and checked before the first change,
    and compared before it takes its place; what is replaced is kept beside.
    """
    from neuroca_backup.engines import RestoreTarget
    from neuroca_backup.model.endpoint import Endpoint
    from neuroca_backup.services import exports, targets

    if in_place and target_directory is not None:
        raise typer.BadParameter("Give --target-directory, or --in-place: one of them.")
    if in_place and confirm != "models":
        raise typer.BadParameter(
            "--in-place replaces models of this machine; add --confirm models."
        )
    runtime = Session.of(context).runtime(Keys.NONE)
    restore_id = "restore-" + set_id(at=datetime.now(UTC), run=f"import {attempt_token()}")
    try:
        runtime.spool.claim(restore_id, "import")
        work = runtime.spool.work(restore_id)
        with exports.read(input_, work) as found:
            jobs = [(one, one.restorable(work)) for one in _chosen(found, model or (), input_)]
            target = RestoreTarget(Endpoint.this_machine(), replace=True)
            if target_directory is not None:
                target = RestoreTarget(targets.directory(target_directory, "model_weights"))
            for one, backup in jobs:
                render.say(f"{', '.join(_names(one))} to {target.endpoint.label}")
                for note in one.engine.preflight(backup, target):
                    render.note(note)
            if not (in_place or target_directory is not None):
                render.say(
                    "Nothing was touched. Apply it with --target-directory, or --in-place "
                    "--confirm models."
                )
                return
            for one, backup in jobs:
                _apply(one, backup, target)
    finally:
        runtime.restores.clear(restore_id)


def _apply(one: Exported, backup: Restorable, target: RestoreTarget) -> None:
    """Load, compare, publish."""
    notes = list(one.engine.load(backup, target))
    differences = list(one.engine.compare(backup, target))
    if differences:
        raise ComparisonError(
            f"The loaded copy of {', '.join(_names(one))} differs: {differences[0]}"
            + (f" and {len(differences) - 1} more" if differences[1:] else ""),
            remedy="Its place was not changed. Find out what changed the copy, and repeat.",
            differences=len(differences),
        )
    for note in (*notes, *one.engine.publish(backup, target)):
        render.note(note)
    render.say(f"Imported {one.engine.summary(one.manifest)}")


def _subjects(runtime: Runtime, models: Sequence[str]) -> list[Subject]:
    """Return the chosen models of all sources of the component, or all of them.

    Raises:
        ConfigurationError: backup.yaml has no such source.
        NotFoundError: There is no such model; names those there are.
    """
    sources = list(runtime.settings.sources_of(Component.MODEL_WEIGHTS))
    if not sources:
        raise ConfigurationError(
            "backup.yaml has no source of the component model_weights",
            remedy="Write one under `sources` with `component: model_weights`; "
            "docs/reference/model-weights.md shows how.",
            path="sources",
        )
    parts = [part for source in sources for part in runtime.parts(source)]
    _require(models, [part.name for part in parts], where="the sources of backup.yaml")
    return [runtime.subject(part.source) for part in parts if not models or part.name in models]


def _chosen(found: Sequence[Exported], models: Sequence[str], path: Path) -> list[Exported]:
    """Return the exported sources that hold the chosen models."""
    for one in found:
        if one.manifest.component is not Component.MODEL_WEIGHTS:
            raise ConfigurationError(
                f"{path} holds {one.manifest.source}, which is no model",
                remedy="Use `config-import` for a configuration.",
                value=str(path),
            )
    _require(models, [name for one in found for name in _names(one)], where=str(path))
    return [one for one in found if not models or set(_names(one)) & set(models)]


def _names(one: Exported) -> list[str]:
    return list(one.manifest.dump.facts["models"])


def _require(models: Sequence[str], known: Sequence[str], *, where: str) -> None:
    for name in models:
        if name not in known:
            raise NotFoundError(
                f"There is no model {name!r} in {where}",
                remedy=f"There are: {', '.join(known)}.",
                value=name,
            )
