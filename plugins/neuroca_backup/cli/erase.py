"""`erase`: making one backup unreadable at once, everywhere, with a certificate."""

# ruff: noqa: PLC0415 - `--help` must not pay for what the commands need

from __future__ import annotations

from typing import Annotated

import typer

from neuroca_backup.cli import render
from neuroca_backup.cli.reporting import line
from neuroca_backup.cli.session import Keys, Session, actor
from neuroca_backup.errors import BackupError, ConfigurationError


def erase(
    context: typer.Context,
    backup_id: Annotated[str, typer.Argument(help="As `list` prints it.")],
    *,
    reason: Annotated[str, typer.Option(help="Why; it goes into the certificate.")],
    confirm: Annotated[
        str | None,
        typer.Option(metavar="BACKUP_ID", help="The id once more; without it you are asked."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the certificate as JSON.")] = False,
) -> None:
    """Erase one backup for good, from every store, whatever its age.

    Its wrapped keys are destroyed first, in all versions, so that no key opens it
    any more, nor any copy of its members. Refused while the backup is on hold,
    locked, or needed by younger ones.
    """
    from neuroca_backup.cli.choosing import look_up
    from neuroca_backup.model import quantity

    if not reason.strip():
        raise ConfigurationError("--reason is empty", remedy="Say why it is erased.")
    runtime = Session.of(context).runtime(Keys.NONE)
    ref = look_up(runtime, backup_id).ref
    record = runtime.retention.erasable(ref)
    stores = ", ".join(runtime.stores)
    line(
        f"{backup_id} ({quantity.size(record.size)}, "
        f"{'verified' if record.sound else 'not verified'}) is erased from {stores}. "
        "Nobody can bring it back."
    )
    typed = confirm if confirm is not None else typer.prompt("Type its id to go on", err=True)
    if typed != backup_id:
        raise ConfigurationError(
            "What was typed is not the id, so nothing was erased",
            remedy="Repeat the command and type the id as `list` prints it.",
        )
    try:
        certificate = runtime.retention.erase(ref, reason=reason, actor=actor())
    except BackupError:
        line("There is no certificate. `neuroca-backup audit list` shows how far it went.")
        raise
    if as_json:
        render.print_json(certificate.model_dump(mode="json"))
        return
    render.say(certificate.statement)
    for found in certificate.keys:
        render.say(f"  {found.store}: {found.versions} versions of {found.key} ({found.sha256})")
