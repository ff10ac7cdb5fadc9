"""`decrypt`: one member of a backup as a file, with no server and no engine."""

# ruff: noqa: PLC0415 - `--help` must not pay for what the commands need

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neuroca_backup.cli import render
from neuroca_backup.cli.make import PassphraseFile, RecoveryKey, StoreName
from neuroca_backup.cli.session import Keys, Session


def decrypt(
    context: typer.Context,
    backup_id: Annotated[str, typer.Argument(help="As `list` prints it.")],
    member: Annotated[str, typer.Argument(help="As `show` prints it.")],
    *,
    output: Annotated[Path, typer.Option(help="New file (mode 600); never an existing one.")],
    store: Annotated[
        StoreName | None, typer.Option(help="Read this store alone; without it the first good one.")
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Leave the compression in.")] = False,
    recovery_key: RecoveryKey = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Write one member of a backup to a file.

    It is unsealed and decompressed, and every digest is checked. The file holds
    data in clear. On any error there is no file.
    """
    from neuroca_backup.cli.choosing import look_up
    from neuroca_backup.services.extract import extract

    runtime = Session.of(context).runtime(
        Keys.OPEN, recovery_key=recovery_key, passphrase_file=passphrase_file
    )
    if store is not None and store.value not in runtime.stores:
        raise typer.BadParameter(f"backup.yaml has no store {store.value}.")
    found = extract(
        look_up(runtime, backup_id).ref,
        member,
        output=output,
        stores=[one for name, one in runtime.stores.items() if store in {None, name}],
        keyring=runtime.keyring,
        raw=raw,
    )
    runtime.audit.note("export", backup_id, details={"member": member, "to": str(output)})
    render.say(f"{output}: {found.size:,} bytes of {member} from {found.store}.")
