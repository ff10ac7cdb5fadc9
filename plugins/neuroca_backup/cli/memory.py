"""`memory-export` and `memory-import`: the memory tiers as files in clear."""

# ruff: noqa: PLC0415 - `--help` must not pay for what the commands need

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from neuroca_backup.cli import render
from neuroca_backup.cli.approving import ApprovedBy, Reason, require_export
from neuroca_backup.cli.reporting import line
from neuroca_backup.cli.session import Keys, Session
from neuroca_backup.errors import ConfigurationError
from neuroca_backup.model.identity import attempt_token, set_id

if TYPE_CHECKING:
    from neuroca_backup.engines import RestoreTarget
    from neuroca_backup.model.manifest import Manifest
    from neuroca_backup.runtime import Runtime

_ENGINES = ("working_memory", "episodic_memory", "semantic_memory")

Working = Annotated[
    bool, typer.Option("--working-memory", "--stm", help="Working memory (short-term).")
]
Episodic = Annotated[
    bool, typer.Option("--episodic-memory", "--mtm", help="Episodic memory (medium-term).")
]
Semantic = Annotated[
    bool, typer.Option("--semantic-memory", "--ltm", help="Semantic memory (long-term).")
]


def memory_export(
    context: typer.Context,
    *,
    output: Annotated[
        Path,
        typer.Option(help="A directory to be made, or one file with a name that ends in .tar."),
    ],
    working: Working = False,
    episodic: Episodic = False,
    semantic: Semantic = False,
    approved_by: ApprovedBy = None,
    reason: Reason = None,
) -> None:
    """Write memory tiers to files, all of them if none is named.

    The files hold data in clear and are no backup: nothing encrypts or copies
    them. It is there whole or not at all.
    """
    from neuroca_backup.services import exports

    runtime = Session.of(context).runtime(Keys.NONE)
    wanted = _tiers(working=working, episodic=episodic, semantic=semantic)
    sources = [name for name, tier in _sources(runtime).items() if tier in wanted]
    if not sources:
        raise ConfigurationError(
            f"backup.yaml has no source of {' or '.join(wanted)} memory",
            remedy=f"Add one whose engine is one of: {', '.join(_ENGINES)}.",
            path="sources",
        )
    exports.require_free(output)
    subjects = [runtime.subject(name) for name in sources]
    require_export(
        runtime,
        {one.name: one.classification for one in subjects},
        approved_by=approved_by,
        reason=reason,
    )
    line(f"warning: {output} will hold memories in clear; remove it when it is not needed")
    for manifest in exports.write(subjects, output):
        engine = runtime.subject(manifest.source).engine
        render.say(f"{manifest.source}: {engine.summary(manifest)}")
        for note in manifest.dump.notes:
            render.note(note)
        runtime.audit.note("export", manifest.source, details={"to": str(output)})
    render.say(f"Exported to {output}, in clear; only its owner may read it.")


def memory_import(
    context: typer.Context,
    *,
    input_: Annotated[Path, typer.Option("--input", help="What memory-export has written.")],
    working: Working = False,
    episodic: Episodic = False,
    semantic: Semantic = False,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WORD=VALUE",
            help="Only such items: session=abc, user=42, from=2026-11-01T00:00Z, ...; may be "
            "repeated.",
        ),
    ] = None,
    target_connection: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TIER=ID",
            help="Where a tier goes, such as working=my_redis; without it to its own source.",
        ),
    ] = None,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Also where the tier holds data; that is not saved first."),
    ] = False,
) -> None:
    """Import memory tiers from files, all that are there if none is named.

    All files and targets are checked, and all tiers loaded beside what is there
    and compared, before any is put in its place.
    """
    from neuroca_backup.services import exports

    runtime = Session.of(context).runtime(Keys.NONE)
    wanted = _tiers(working=working, episodic=episodic, semantic=semantic)
    connections = _connections(target_connection or ())
    restore_id = "restore-" + set_id(at=datetime.now(UTC), run=f"import {attempt_token()}")
    try:
        runtime.spool.claim(restore_id, "import")
        work = runtime.spool.work(restore_id)
        with exports.read(input_, work, wanted=lambda one: _tier_of(one) in wanted) as found:
            imports = [
                exports.Import(
                    exported=one,
                    target=_target(runtime, one.manifest, connections, replace=replace),
                    only=tuple(only or ()),
                )
                for one in found
            ]
            if not imports:
                raise ConfigurationError(
                    f"{input_} has no export of {' or '.join(wanted)} memory",
                    remedy="Leave the tiers out to import what is there.",
                    value=str(input_),
                )
            exports.load(imports, work, tell=lambda source, note: render.note(f"{source}: {note}"))
    finally:
        runtime.restores.clear(restore_id)
    for one in imports:
        manifest = one.exported.manifest
        what = "what was chosen of it" if only else one.exported.engine.summary(manifest)
        render.say(f"{one.source}: {what}, imported to {one.target.endpoint.label}")


def _tiers(*, working: bool, episodic: bool, semantic: bool) -> tuple[str, ...]:
    from neuroca_backup.memory import tiers

    chosen = {tiers.WORKING: working, tiers.EPISODIC: episodic, tiers.SEMANTIC: semantic}
    return tuple(tier for tier, named in chosen.items() if named) or tuple(chosen)


def _sources(runtime: Runtime) -> dict[str, str]:
    """Return the sources of memory tiers in backup.yaml, and the tier of each."""
    from neuroca_backup import engines

    return {
        name: str(engines.named(source.engine).options(source.options)["tier"])
        for name, source in runtime.settings.sources.items()
        if source.engine in _ENGINES
    }


def _tier_of(manifest: Manifest) -> str:
    return str(manifest.dump.facts.get("tier")) if manifest.engine in _ENGINES else ""


def _connections(given: Sequence[str]) -> dict[str, str]:
    """Return the connection of each tier that was given one."""
    from neuroca_backup.memory import tiers

    found: dict[str, str] = {}
    for one in given:
        word, _, connection = one.partition("=")
        try:
            tier = tiers.tier_of(word)
        except ValueError as error:
            raise typer.BadParameter(f"--target-connection {one}: {error}.") from None
        if not connection or tier in found:
            raise typer.BadParameter(
                f"--target-connection {one}: write {tier}=ID, once for a tier."
            )
        found[tier] = connection
    return found


def _target(
    runtime: Runtime, manifest: Manifest, connections: Mapping[str, str], *, replace: bool
) -> RestoreTarget:
    from neuroca_backup.engines import RestoreTarget
    from neuroca_backup.services import targets

    connection = connections.get(_tier_of(manifest))
    if connection is None:
        own = runtime.endpoint(manifest.source)
        return RestoreTarget(targets.with_default_port(own, manifest.engine), replace=replace)
    endpoint = targets.with_default_port(runtime.connections.endpoint(connection), manifest.engine)
    notes = targets.refuse_production(
        endpoint, settings=runtime.settings, connections=runtime.connections
    )
    for note in notes:
        line(f"warning: {note}")
    return RestoreTarget(endpoint, replace=replace)
