"""`policies`: least privilege as documents, made from backup.yaml and never applied."""

# ruff: noqa: PLC0415 - `--help` must not pay for what the commands need

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neuroca_backup.cli import render
from neuroca_backup.cli.session import Session
from neuroca_backup.model.role import Role


def policies(
    context: typer.Context,
    document: Annotated[
        str | None, typer.Argument(metavar="[DOCUMENT]", help="Print this one alone.")
    ] = None,
    *,
    role: Annotated[
        Role | None, typer.Option(help="Only those of this role.", case_sensitive=False)
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write them below this directory.")
    ] = None,
) -> None:
    """List, print or write policies of AWS and grants of databases.

    They give each role what it needs and no more. Nothing is ever applied: an
    administrator does that. docs/how-to/secure-a-deployment.md goes through it.
    """
    from neuroca_backup.services.policies import documents

    found = documents.chosen(
        documents.documents(Session.of(context).settings), role=role, path=document
    )
    if output is not None:
        documents.write(found, output)
        render.say(f"{len(found)} documents written below {output}; none was applied.")
    elif document is not None:
        render.say(found[0].text.rstrip("\n"))
    else:
        table = render.table("document", "what it is")
        for one in found:
            table.add_row(one.path, one.purpose)
        render.show(table)
