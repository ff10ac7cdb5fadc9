"""`decrypt`: one member of a backup as a file, with no server and no engine."""

# ruff: noqa: PLC0415 - `--help` must not pay for what the commands need

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neuroca_backup.cli import render
from neuroca_backup.cli.approving import ApprovedBy, Reason, require_export
from neuroca_backup.cli.make import PassphraseFile, RecoveryKey, StoreName
from neuroca_backup.cli.session import Keys, Session


def decrypt(  # noqa: PLR0913 - one argument an option
    context: typer.Context,
    backup_id: Annotated[str, typer.Argument(help="As `list` prints it.")],
    member: Annotated[str, typer.Argument(help="As `show` prints it.")],
    *,
    output: Annotated[Path, typer.Option(help="New file (mode 600); never an existing one.")],
    store: Annotated[
        StoreName | None, typer.Option(help="Read this store alone; without it the first good one.")
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Leave the compression in.")] = False,
    approved_by: ApprovedBy = None,
    reason: Reason = None,
    recovery_key: RecoveryKey = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Write one member of a backup to a file.

    It is unsealed and decompressed, and every digest is checked. The file holds
    data in clear. On any error there is no file.
    """
    from neuroca_backup.cli.choosing import look_up
    from neuroca_backup.services.classification import strictest
    from neuroca_backup.services.extract import extract

    runtime = Session.of(context).runtime(
        Keys.OPEN, recovery_key=recovery_key, passphrase_file=passphrase_file
    )
    if store is not None and store.value not in runtime.stores:
        raise typer.BadParameter(f"backup.yaml has no store {store.value}.")
    listed = look_up(runtime, backup_id)
    source = runtime.settings.source(listed.ref.source)
    known = [manifest.classification for manifest in listed.manifests.values()]
    known += [] if source is None else [source.classification]
    require_export(runtime, {backup_id: strictest(known)}, approved_by=approved_by, reason=reason)
    found = extract(
        listed.ref,
        member,
        output=output,
        stores=[one for name, one in runtime.stores.items() if store in {None, name}],
        keyring=runtime.keyring,
        raw=raw,
    )
    runtime.audit.note("export", backup_id, details={"member": member, "to": str(output)})
    render.say(f"{output}: {found.size:,} bytes of {member} from {found.store}.")
