"""`keys`: making the keys that backups are sealed for, and changing them."""

# ruff: noqa: PLC0415 - `--help` must not pay for what the commands need

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from neuroca_backup.cli import render
from neuroca_backup.cli.make import PassphraseFile, RecoveryKey
from neuroca_backup.cli.reporting import ExitCode, line
from neuroca_backup.cli.session import Keys, Session, passphrase
from neuroca_backup.model.identity import Component, is_part_of

if TYPE_CHECKING:
    from neuroca_backup.services.rotation import Rotation, SourceKeys

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Make the keys that backups are sealed for, and change them.",
)

OfComponent = Annotated[
    Component | None, typer.Option(help="Only this component.", case_sensitive=False)
]
OfSource = Annotated[str | None, typer.Option(help="Only this source, and its parts.")]


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


@app.command()
def status(
    context: typer.Context,
    *,
    component: OfComponent = None,
    source: OfSource = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show which backups are still under an old key, and how old the keys are.

    Exits with 1 where something is under an old key, not known, or due to be rotated.
    """
    rotation = Session.of(context).runtime(Keys.SEAL).rotation
    found = [rotation.status(*one) for one in _chosen(rotation, component, source)]
    raise typer.Exit(_report(rotation, found, as_json=as_json))


@app.command()
def rotate(
    context: typer.Context,
    *,
    component: OfComponent = None,
    source: OfSource = None,
    purge_old: Annotated[
        bool,
        typer.Option(
            "--purge-old", help="Also remove the old versions in buckets: after a key was stolen."
        ),
    ] = False,
    recovery_key: RecoveryKey = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Wrap the keys of every backup for the keys that backup.yaml names now.

    No data is read or written. Each new document is opened with every new key
    before it replaces the old one. Repeat it after an interruption.
    """
    rotation = (
        Session.of(context)
        .runtime(Keys.SEAL, recovery_key=recovery_key, passphrase_file=passphrase_file)
        .rotation
    )
    done = [
        rotation.rotate(*one, purge_old=purge_old) for one in _chosen(rotation, component, source)
    ]
    for one in done:
        render.say(
            f"{one.component}/{one.source}: {one.rotated:,} of {one.documents:,} wrapped anew"
            + (f", {one.purged:,} old versions removed" if purge_old else "")
        )
    raise typer.Exit(_report(rotation, done, as_json=False))


def _chosen(
    rotation: Rotation, component: Component | None, source: str | None
) -> list[tuple[Component, str]]:
    return [
        (one, name)
        for one, name in rotation.sources()
        if component in {None, one}
        and (source is None or name == source or is_part_of(name, source))
    ]


def _report(rotation: Rotation, found: Sequence[SourceKeys], *, as_json: bool) -> ExitCode:
    """Show what is known; return the exit code that it deserves."""
    ages = rotation.ages()
    if as_json:
        render.print_json(
            {
                "sources": [asdict(one) | {"remaining": one.remaining} for one in found],
                "keys": [asdict(one) for one in ages],
            }
        )
    else:
        table = render.table("source", "keysets", "current", "to rotate", "oldest", "old versions")
        for one in found:
            table.add_row(
                f"{one.component}/{one.source}",
                f"{one.documents:,}",
                f"{one.current:,}",
                f"{one.remaining:,}",
                f"{one.oldest_days} days",
                f"{one.older:,}",
            )
        if found:
            render.show(table)
        for stale in (stale for one in found for stale in one.stale):
            render.say(f"  {stale}")
        for age in ages:
            known = "of unknown age" if age.days is None else f"{age.days} days old"
            render.say(f"{age.label}: {known}{f'; WARNING: {age.warning}' if age.warning else ''}")
        if not found:
            line("There is no backup whose keys could be looked at.")
    for problem in (problem for one in found for problem in one.problems):
        line(f"problem: {problem}")
    troubled = [one for one in found if one.problems]
    if troubled and all(one.transient for one in troubled):
        return ExitCode.TRY_AGAIN
    settled = found and all(one.clean for one in found) and not any(one.warning for one in ages)
    return ExitCode.DONE if settled else ExitCode.FAILED
