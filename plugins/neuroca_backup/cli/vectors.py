"""`vector-export` and `vector-import`: a vector store as a file of JSON Lines."""

# ruff: noqa: PLC0415 - `--help` must not pay for what the commands need

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from neuroca_backup.cli import render
from neuroca_backup.cli.approving import ApprovedBy, Reason, require_export
from neuroca_backup.cli.session import Keys, Session

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neuroca_backup.model.endpoint import Endpoint
    from neuroca_backup.vectors.engine import VectorEngine
    from neuroca_backup.vectors.transfer import Transferred


def vector_export(
    context: typer.Context,
    *,
    source: Annotated[str, typer.Option(help="A vector store among the sources of backup.yaml.")],
    output: Annotated[
        Path, typer.Option(help="New file (mode 600); compressed if it ends in .gz.")
    ],
    collection: Annotated[
        list[str] | None,
        typer.Option(help="Only this collection; may be repeated. Default: those of the source."),
    ] = None,
    approved_by: ApprovedBy = None,
    reason: Reason = None,
) -> None:
    """Write a vector store to a file of JSON Lines.

    The file holds data in clear and is no backup: nothing encrypts or verifies
    it. On any error there is no file.
    """
    from neuroca_backup.vectors import transfer

    engine, endpoint = _source(context, source)
    runtime = Session.of(context).runtime(Keys.NONE)
    settings = runtime.source(source)
    require_export(
        runtime, {source: settings.classification}, approved_by=approved_by, reason=reason
    )
    wanted = tuple(collection or ()) or engine.options(settings.options)["collections"]
    with engine.connect(endpoint) as database:
        done = transfer.export(database, endpoint, output, wanted)
    runtime.audit.note("export", source, details={"to": str(output)})
    _say(done, f"{{}}: {{}} vectors written to {output}.")


def vector_import(
    context: typer.Context,
    *,
    input_: Annotated[Path, typer.Option("--input", help="A file of JSON Lines (.jsonl[.gz]).")],
    source: Annotated[
        str | None, typer.Option(help="Import into the server of this source.")
    ] = None,
    target_connection: Annotated[
        str | None, typer.Option(metavar="ID", help="Import into the server of this connection.")
    ] = None,
    add: Annotated[
        bool, typer.Option("--add", help="Also into collections that hold vectors already.")
    ] = False,
) -> None:
    """Import a file of JSON Lines into a vector store.

    Every line is checked before anything is touched, and the vectors are counted
    afterwards.
    """
    from neuroca_backup.vectors import transfer

    if (source is None) == (target_connection is None):
        raise typer.BadParameter("Give --source or --target-connection: one of them.")
    if source is not None:
        engine, endpoint = _source(context, source)
    else:
        engine, endpoint = _connection(context, str(target_connection))
    with engine.connect(endpoint) as database:
        done = transfer.load(database, endpoint, input_, add=add)
    _say(done, "{}: {} vectors imported.")


def _source(context: typer.Context, name: str) -> tuple[VectorEngine, Endpoint]:
    from neuroca_backup.services import targets

    runtime = Session.of(context).runtime(Keys.NONE)
    kind = runtime.source(name).engine
    return _vector_engine(kind, what=f"The source {name}"), targets.with_default_port(
        runtime.endpoint(name), kind
    )


def _connection(context: typer.Context, name: str) -> tuple[VectorEngine, Endpoint]:
    from neuroca_backup.services import targets

    endpoint = Session.of(context).connections.endpoint(name)
    engine = _vector_engine(endpoint.kind, what=f"The connection {name}")
    return engine, targets.with_default_port(endpoint, engine.kind)


def _vector_engine(kind: str, *, what: str) -> VectorEngine:
    from neuroca_backup import engines
    from neuroca_backup.vectors.engine import VectorEngine

    engine = engines.named(kind)
    if not isinstance(engine, VectorEngine):
        raise typer.BadParameter(f"{what} is no vector store but of the kind {kind}.")
    return engine


def _say(done: Sequence[Transferred], words: str) -> None:
    for one in done:
        render.say(words.format(one.collection, f"{one.vectors:,}"))
