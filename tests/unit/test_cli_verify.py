"""`verify --backup-path`: the copy that an address names, and what is no such address."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from neuroca_backup.cli.app import app
from neuroca_backup.cli.reporting import ExitCode
from neuroca_backup.model.identity import BackupRef, Component
from neuroca_backup.model.status import Level
from neuroca_backup.services.inventory import read_manifest, read_verification
from neuroca_backup.stores.local import LocalStore
from support.wiring import local_places


@dataclass(frozen=True)
class Stand:
    """Two directories with one backup of a directory of files."""

    root: Path
    ref: BackupRef

    def run(self, *words: str) -> tuple[int, str]:
        ended = CliRunner().invoke(app, ["--config-path", str(self.root / "backup.yaml"), *words])
        return ended.exit_code, ended.output

    def store(self, name: str) -> LocalStore:
        return LocalStore(name, self.root / name)

    def checks(self) -> dict[str, object]:
        """Return when each store's copy was checked last."""
        found = {
            name: read_verification(self.store(name), self.ref) for name in ("primary", "secondary")
        }
        return {name: one.checked_at for name, one in found.items() if one is not None}


@pytest.fixture
def stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stand]:
    monkeypatch.delenv("NEUROCA_BACKUP_CONNECTIONS", raising=False)
    files = tmp_path / "files"
    files.mkdir()
    (files / "a.yaml").write_text("a: 1\n")
    places = local_places(tmp_path)
    body = {
        "schedule": {},
        "storage": places.storage,
        "retention": {},
        "encryption": places.encryption,
        "pipeline": {"spool": str(tmp_path / "spool")},
        "sources": {
            "files": {
                "component": "configuration",
                "engine": "filetree",
                "options": {"parameters": [str(files)]},
            }
        },
    }
    (tmp_path / "backup.yaml").write_text(yaml.safe_dump({"backup": body}))
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    made = Stand(tmp_path, BackupRef("20260101T000000Z-00000000-files", Component.CONFIGURATION))
    assert made.run("backup", "files")[0] == ExitCode.DONE
    (folder,) = (tmp_path / "primary" / "configuration" / "files").iterdir()
    yield Stand(tmp_path, BackupRef(folder.name, Component.CONFIGURATION))
    root.handlers[:] = handlers
    root.setLevel(level)


def test_an_address_of_a_folder_a_manifest_or_a_member_checks_that_copy_alone_in_depth(
    stand: Stand,
) -> None:
    manifest = read_manifest(stand.store("primary"), stand.ref).manifest
    member = manifest.key_of(manifest.members[0])
    for key in (stand.ref.prefix, stand.ref.manifest_key, member):
        before = stand.checks()
        code, printed = stand.run("verify", "--backup-path", f"file://{stand.root}/primary/{key}")
        assert code == ExitCode.DONE, printed
        assert "parsed" in printed
        after = stand.checks()
        assert (after["primary"] != before["primary"], after["secondary"]) == (
            True,
            before["secondary"],
        )
    found = read_verification(stand.store("primary"), stand.ref)
    assert found is not None
    assert (found.level, found.level_at) == (Level.PARSED, found.checked_at)


def test_damage_at_an_address_exits_with_four_and_the_other_copy_is_sound(stand: Stand) -> None:
    manifest = read_manifest(stand.store("primary"), stand.ref).manifest
    (stand.root / "primary" / manifest.key_of(manifest.members[0])).write_bytes(b"")
    path = f"{stand.root}/primary/{stand.ref.prefix}"
    code, told = stand.run("verify", "--backup-path", path)
    assert code == ExitCode.DAMAGED
    assert f"is damaged in primary: {manifest.key_of(manifest.members[0])}" in told
    code, told = stand.run("verify", "--backup-path", path.replace("primary", "secondary"))
    assert code == ExitCode.DONE, told


def test_a_copy_whose_manifest_is_gone_is_damaged_as_another_store_has_it(stand: Stand) -> None:
    stand.store("secondary").delete(stand.ref.manifest_key)
    path = f"{stand.root}/secondary/{stand.ref.prefix}"
    assert stand.run("verify", "--backup-path", path)[0] == ExitCode.DAMAGED


@pytest.mark.parametrize(
    ("path", "code", "words"),
    [
        ("s3://neuroca-backups/database/neuroca_db_20261123.dump.gz", 2, "in no store of backup"),
        ("{root}/primary/configuration/files", 2, "belongs to no backup"),
        ("20260101T000000Z-00000000-files", 2, "is not the address of a backup"),
        (
            "{root}/primary/configuration/files/20260101T000000Z-00000000-files",
            1,
            "There is no backup at",
        ),
    ],
)
def test_what_is_no_backup_of_the_installation_is_one_clear_error(
    stand: Stand, path: str, code: int, words: str
) -> None:
    ended, told = stand.run("verify", "--backup-path", path.format(root=stand.root))
    assert (ended, words in told) == (code, True), told
    assert told.startswith("error: ")
    assert "Traceback" not in told


@pytest.mark.parametrize("other", [("--all",), ("--source", "files"), ("--store", "primary")])
def test_an_address_stands_alone(stand: Stand, other: tuple[str, ...]) -> None:
    before = stand.checks()
    assert stand.run("verify", "--backup-path", f"{stand.root}/primary", *other)[0] == 2
    assert stand.checks() == before


def test_a_shallow_check_takes_nothing_back_that_a_deeper_one_has_proven(stand: Stand) -> None:
    code, printed = stand.run("verify", stand.ref.backup_id, "--level", "intact")
    assert (code, "parsed" in printed) == (0, True)
    found = read_verification(stand.store("secondary"), stand.ref)
    assert found is not None
    assert found.level is Level.PARSED
    assert found.level_at < found.checked_at
    _, shown = stand.run("show", stand.ref.backup_id)
    assert "parsed" in shown
