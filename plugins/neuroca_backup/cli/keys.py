"""`keys`: making the keys that backups are sealed for."""

# ruff: noqa: PLC0415 - `--help` must not pay for what the commands need

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neuroca_backup.cli import render
from neuroca_backup.cli.session import passphrase

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Make the keys that backups are sealed for."
)


@app.command("generate-recovery")
def generate_recovery(
    *,
    private: Annotated[Path, typer.Option(help="New file for the private half; keep it offline.")],
    public: Annotated[Path, typer.Option(help="New file for the public half.")],
    passphrase_file: Annotated[
        Path | None, typer.Option(help="Its first line encrypts the private half.")
    ] = None,
) -> None:
    """Make an offline recovery key: it opens every backup when all other keys are lost."""
    from neuroca_backup.keyring.recovery import RecoveryPublicKey, generate_recovery_pair

    phrase = passphrase(passphrase_file, what=f"the new recovery key {private}", confirm=True)
    generate_recovery_pair(private, public, phrase())
    render.say(f"The recovery key {RecoveryPublicKey(public).id} was made.")
    render.say(f"Set encryption.recovery_public_key in backup.yaml to {public.absolute()}.")
    render.say(f"Take {private} off this machine, and keep its passphrase apart from it.")


@app.command("generate-local")
def generate_local(
    *,
    file: Annotated[Path, typer.Option(help="New file for the key.")],
) -> None:
    """Make a key file for `key_management: local`."""
    from neuroca_backup.keyring.local import LocalKeyFile

    key = LocalKeyFile.generate(file)
    render.say(f"The key {key.id} was made.")
    render.say(f"Set encryption.local_key_file in backup.yaml to {file.absolute()}.")
    render.say("Keep a copy of it elsewhere: without it no backup of this machine can be read.")
