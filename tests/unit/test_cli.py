"""The command's words, its errors and its exit codes; nothing here needs a server."""

from __future__ import annotations

import json
import logging
import os
import pty
import resource
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from neuroca_backup.cli import make, render, render_sets, stored
from neuroca_backup.cli.app import app
from neuroca_backup.cli.reporting import ExitCode, exit_code, worst
from neuroca_backup.connections import FileConnections
from neuroca_backup.errors import (
    AccessDeniedError,
    BackupError,
    ComparisonError,
    ConfigurationError,
    DamagedError,
    KeyUnavailableError,
    NotFoundError,
    StoreUnavailableError,
    TargetRefusedError,
    UnreachableError,
)
from neuroca_backup.keyring.local import LocalKeyFile
from neuroca_backup.model.backup_set import BackupSet, SetMember
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.identity import Component
from neuroca_backup.model.manifest import Dump, Manifest
from neuroca_backup.services.backup import BackupType
from neuroca_backup.services.inventory import Listed
from neuroca_backup.services.sets import ListedSet
from neuroca_backup.services.targets import refuse_production, with_default_port
from neuroca_backup.settings import load

BACKUP = "20261123T020000Z-1f0c9a3e-postgres"
PLUGINS = Path(__file__).resolve().parents[2] / "plugins"
HELP_SECONDS = 0.3


@pytest.fixture(autouse=True)
def _untouched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep the process's own log and variables out of the tests, and the tests' out of it."""
    for name in [name for name in os.environ if name.startswith(("NEUROCA_", "AIRFLOW_CONN_"))]:
        monkeypatch.delenv(name)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A backup.yaml whose stores are two directories that nobody has initialised."""
    LocalKeyFile.generate(tmp_path / "key")
    path = tmp_path / "backup.yaml"
    settings = {
        "schedule": {"database": "0 2 * * *"},
        "storage": {
            "primary": {"type": "local", "path": str(tmp_path / "primary")},
            "secondary": {"type": "local", "path": str(tmp_path / "secondary")},
        },
        "retention": {"database": "30d"},
        "encryption": {"key_management": "local", "local_key_file": str(tmp_path / "key")},
        "pipeline": {"spool": str(tmp_path / "spool")},
    }
    path.write_text(yaml.safe_dump({"backup": settings}))
    return path


@pytest.fixture
def initialised(config: Path) -> Path:
    assert run("configure", "--config-path", str(config), "--initialise-stores")[0] == 0
    return config


def run(*words: str) -> tuple[int, str, str]:
    """Return the exit code, stdout and stderr of the command."""
    ended = CliRunner().invoke(app, words)
    if ended.exception is not None and not isinstance(ended.exception, SystemExit):
        raise ended.exception
    return ended.exit_code, ended.stdout, ended.stderr


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (ConfigurationError, 2),
        (UnreachableError, 3),
        (StoreUnavailableError, 3),
        (DamagedError, 4),
        (ComparisonError, 4),
        (NotFoundError, 1),
        (KeyUnavailableError, 1),
        (TargetRefusedError, 1),
        (AccessDeniedError, 1),
    ],
)
def test_an_error_is_two_lines_without_a_traceback_and_an_exit_code(
    kind: type[BackupError], code: int, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_session: object, *_: object, **__: object) -> None:
        raise kind("The thing is so", remedy="Do this.")

    monkeypatch.setattr(stored.Session, "runtime", fail)
    assert run("--config-path", str(config), "list") == (
        code,
        "",
        "error: The thing is so\nremedy: Do this.\n",
    )


def test_control_c_exits_with_130(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_session: object, *_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stored.Session, "runtime", interrupt)
    code, _, said = run("--config-path", str(config), "list")
    assert code == ExitCode.INTERRUPTED
    assert said.startswith("interrupted")


def test_of_several_errors_damage_decides_and_a_passing_fault_comes_last() -> None:
    passing = UnreachableError("x", remedy="y")
    lasting = NotFoundError("x", remedy="y")
    damage = DamagedError("x", remedy="y")
    assert worst([passing, damage, lasting]) == exit_code(damage) == 4
    assert worst([passing, lasting]) == exit_code(lasting) == 1
    assert worst([passing]) == 3
    assert worst([]) == 0


@pytest.mark.parametrize(
    "words",
    [
        ("restore", "postgres"),
        ("restore", "postgres", "--sandbox", "--target-connection", "twin"),
        ("restore", "postgres", "--in-place"),
        ("restore", "postgres", "--in-place", "--confirm", "mongodb"),
        ("restore", "postgres", "--sandbox", "--before", "2026-11-23T02:00:00"),
        ("restore", "postgres", "--sandbox", "--before", "yesterday"),
        ("restore", "postgres", "--sandbox", "--before", "2026-11-23T02Z", "--backup-id", BACKUP),
        ("restore", "mongodb", "--sandbox", "--backup-id", BACKUP),
        ("restore", "postgres", "--sandbox", "--store", "tertiary"),
        ("restore", "postgres", "--sandbox", "--store", "elsewhere"),
        ("restore", "--sandbox"),
        ("restore", "postgres", "--set", "latest", "--sandbox"),
        ("restore", "--set", "latest", "--target-connection", "twin"),
        ("restore", "--set", "latest", "--sandbox", "--backup-id", BACKUP),
        ("restore", "--set", "latest", "--sandbox", "--only", "neuroca"),
        ("restore", "--set", "latest", "--sandbox", "--until", "2026-11-23T02:00Z"),
        ("restore", "--set", BACKUP[:25], "--in-place", "--confirm", "postgres"),
        ("restore", "--set", "yesterday", "--sandbox"),
        ("restore", "postgres", "--sandbox", "--until", "noon"),
        ("restore", "postgres", "--sandbox", "--until", "2026-11-23T02Z", "--before", "2026T02Z"),
        ("backup", "postgres", "--type", "differential"),
        ("verify",),
        ("verify", BACKUP, "--all"),
        ("verify", "--all", "--level", "restored"),
        ("backup",),
        ("backup", "nobody"),
        ("backup", "postgres", "--mode", "fast"),
        ("show", "not-a-backup-id"),
        ("decrypt", BACKUP, "globals.sql"),
        ("vector-import", "--input", "x.jsonl"),
        ("vector-import", "--input", "x", "--source", "a", "--target-connection", "b"),
        ("vector-export", "--source", "nobody", "--output", "x.jsonl"),
        ("list", "--limit", "0"),
        ("catalog", "status"),
        ("no-such-command",),
    ],
)
def test_a_wrong_command_line_exits_with_two_and_touches_nothing(
    words: tuple[str, ...], initialised: Path, tmp_path: Path
) -> None:
    code, _, said = run("--config-path", str(initialised), *words)
    assert code == ExitCode.USAGE, said
    assert said
    assert not (tmp_path / "spool").exists()


def test_a_mistake_in_backup_yaml_exits_with_two_and_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "backup.yaml"
    path.write_text("backup:\n  shedule: {}\n")
    code, _, said = run("--config-path", str(path), "list")
    assert code == ExitCode.USAGE
    assert str(path) in said
    assert "schedule" in said


def test_configure_writes_a_sample_and_then_checks_it(tmp_path: Path) -> None:
    path = tmp_path / "etc" / "backup.yaml"
    code, printed, _ = run("configure", "--config-path", str(path))
    assert code == 0
    assert printed.startswith(f"{path} was written")
    before = path.read_bytes()
    code, printed, _ = run("configure", "--config-path", str(path))
    assert code == 0
    assert printed.startswith(f"{path} is valid.")
    assert "0 2 * * *" in printed
    assert "warning: " in printed
    assert path.read_bytes() == before


def test_a_store_is_used_only_after_it_was_initialised(config: Path) -> None:
    assert run("--config-path", str(config), "list")[0] == ExitCode.TRY_AGAIN
    code, printed, _ = run("configure", "--config-path", str(config), "--initialise-stores")
    assert code == 0
    assert "primary: " in printed
    code, printed, _ = run("--config-path", str(config), "list")
    assert (code, printed) == (1, "No backups were found in primary, secondary.\n")


def test_an_empty_list_is_empty_json_and_exits_with_one(initialised: Path) -> None:
    code, printed, _ = run("--config-path", str(initialised), "list", "--json")
    assert code == 1
    assert json.loads(printed) == {"backups": [], "unreachable": {}}


def test_a_store_that_is_gone_is_named_and_never_called_empty(
    initialised: Path, tmp_path: Path
) -> None:
    shutil.rmtree(tmp_path / "secondary")
    code, printed, _ = run("--config-path", str(initialised), "list")
    assert code == 1
    assert printed.startswith("No backups were found in primary.\nsecondary did not answer: ")
    code, printed, _ = run("--config-path", str(initialised), "verify", "--all")
    assert code == 1
    assert printed.startswith("There was nothing to verify.\nsecondary did not answer: ")


def test_an_unknown_backup_is_not_found(initialised: Path) -> None:
    code, _, said = run("--config-path", str(initialised), "show", BACKUP)
    assert code == 1
    assert said.startswith(f"error: There is no backup {BACKUP} in primary, secondary\n")


def test_a_file_that_decrypt_would_write_is_gone_after_an_error(
    initialised: Path, tmp_path: Path
) -> None:
    code, _, _ = run(
        *("--config-path", str(initialised), "decrypt", BACKUP, "x"),
        *("--output", str(tmp_path / "x")),
    )
    assert code == 1
    assert not (tmp_path / "x").exists()


def test_a_lost_local_key_file_does_not_keep_the_stores_from_being_listed(
    initialised: Path, tmp_path: Path
) -> None:
    (tmp_path / "key").unlink()
    assert run("--config-path", str(initialised), "list")[0] == 1


def test_a_catalog_whose_connection_is_lost_is_named_and_done_without(
    initialised: Path,
) -> None:
    document = yaml.safe_load(initialised.read_text())
    document["backup"]["catalog"] = {"connection": "neuroca_catalog"}
    initialised.write_text(yaml.safe_dump(document))
    code, printed, said = run("--config-path", str(initialised), "list")
    assert (code, printed) == (1, "No backups were found in primary, secondary.\n")
    assert "without the catalog" in said
    assert "neuroca_catalog" in said


def test_generated_keys_are_private_and_never_overwritten(tmp_path: Path) -> None:
    phrase = tmp_path / "phrase"
    phrase.touch(mode=0o600)
    phrase.write_text("correct horse\n")
    private, public, local = tmp_path / "a.pem", tmp_path / "b.pem", tmp_path / "local"
    recovery = ("keys", "generate-recovery", "--private", str(private), "--public", str(public))
    code, printed, _ = run(*recovery, "--passphrase-file", str(phrase))
    assert code == 0
    assert "sha256:" in printed
    assert "correct horse" not in printed
    assert run("keys", "generate-local", "--file", str(local))[0] == 0
    assert [stat.S_IMODE(path.stat().st_mode) for path in (private, local)] == [0o600, 0o600]
    assert run(*recovery, "--passphrase-file", str(phrase))[0] == 1
    assert run("keys", "generate-local", "--file", str(local))[0] == 1


def test_a_passphrase_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    phrase = tmp_path / "phrase"
    phrase.write_text("correct horse\n")
    phrase.chmod(0o644)
    words = ("--private", str(tmp_path / "a.pem"), "--public", str(tmp_path / "b.pem"))
    code, _, said = run("keys", "generate-recovery", *words, "--passphrase-file", str(phrase))
    assert code == 1
    assert f"chmod 600 {phrase}" in said
    assert "correct horse" not in said
    assert not (tmp_path / "a.pem").exists()


def test_a_source_whose_connection_is_lost_is_named_and_does_not_forbid_other_servers(
    config: Path,
) -> None:
    target = Endpoint(kind="postgres", host="rescue")
    note = "nobody could see whether the target is its server"
    lost = FileConnections(environ={})
    assert note in refuse_production(target, settings=load(config), connections=lost)[0]
    same = FileConnections(environ={"AIRFLOW_CONN_NEUROCA_POSTGRES": "postgres://u:p@RESCUE./"})
    with pytest.raises(TargetRefusedError, match="server of the source postgres"):
        refuse_production(
            with_default_port(target, "postgresql"), settings=load(config), connections=same
        )


def test_a_data_directory_is_nobody_s_server(config: Path) -> None:
    directory = Endpoint(kind="generic", extra={"data_directory": "/srv/restored"})
    local = FileConnections(environ={"AIRFLOW_CONN_NEUROCA_POSTGRES": "postgres://u:p@localhost/"})
    settings = load(config)
    target = with_default_port(directory, "postgresql_physical")
    assert refuse_production(target, settings=settings, connections=local) == []
    with pytest.raises(TargetRefusedError):
        refuse_production(replace(target, host="localhost"), settings=settings, connections=local)


def test_without_a_terminal_nobody_is_asked_for_a_passphrase(tmp_path: Path) -> None:
    words = ("--private", str(tmp_path / "a.pem"), "--public", str(tmp_path / "b.pem"))
    code, _, said = run("keys", "generate-recovery", *words)
    assert code == ExitCode.USAGE
    assert "--passphrase-file" in said
    assert not (tmp_path / "a.pem").exists()


def test_a_passphrase_typed_at_the_terminal_is_not_shown(tmp_path: Path) -> None:
    words = ("--private", str(tmp_path / "a.pem"), "--public", str(tmp_path / "b.pem"))
    pid, terminal = pty.fork()
    if pid == 0:  # the child, whose controlling terminal we hold
        os.environ["PYTHONPATH"] = str(PLUGINS)
        command = [sys.executable, "-m", "neuroca_backup", "keys", "generate-recovery", *words]
        os.execv(sys.executable, command)  # noqa: S606 - our own command, no shell
    seen = b""
    for _ in range(2):
        while not seen.endswith(b": "):
            seen += os.read(terminal, 1024)
        os.write(terminal, b"correct horse\n")
        seen += b"\n"
    seen += b"".join(iter(lambda: _read(terminal), b""))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(terminal)
    assert b"Passphrase of the new recovery key" in seen
    assert b"correct horse" not in seen
    assert b"ENCRYPTED PRIVATE KEY" in (tmp_path / "a.pem").read_bytes()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1024)
    except OSError:  # what Linux says once the child's end is closed
        return b""


def test_help_costs_little_more_than_python_itself() -> None:
    bare = min(_cpu_seconds("-c", "pass") for _ in range(3))
    helping = min(_cpu_seconds("-m", "neuroca_backup", "--help") for _ in range(5))
    assert helping - bare < HELP_SECONDS


def _cpu_seconds(*words: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, *words],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(PLUGINS)},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_imports_nothing_that_only_the_work_needs() -> None:
    code = (
        "import sys, neuroca_backup.cli.app as a\n"
        "heavy = {'pydantic', 'boto3', 'botocore', 'psycopg', 'rich', 'tink', 'airflow', 'yaml'}\n"
        "heavy |= {'pyarrow', 'pymilvus', 'pymongo', 'redis', 'numpy'}\n"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(PLUGINS)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert printed == "[]\n"


@pytest.mark.parametrize(
    "word", ["configure", "list", "show", "sets", "backup", "verify", "restore"]
)
def test_every_command_has_a_help_that_fits_its_line(word: str) -> None:
    code, printed, _ = run(word, "--help")
    assert code == 0
    assert f"Usage: root {word}" in printed or word in printed.splitlines()[0]
    summary = [line for line in run("--help")[1].splitlines() if line.startswith(f"  {word} ")]
    assert summary
    assert not summary[0].endswith("...")


def test_sizes_and_ages_are_in_the_unit_a_person_would_use() -> None:
    assert [render.size(n) for n in (0, 999, 1000, 12_345_678, 5 * 10**12)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "12.3 MB",
        "5.0 TB",
    ]
    now = datetime.now(UTC)
    ages = [render.age(now - (now - timedelta(seconds=s))) for s in (5, 90, 7200, 200_000)]
    assert ages == ["5 s", "1 min", "2 h", "2 d"]


SET = BACKUP[:25]


def recorded_set(*, verified: bool = True, missing: tuple[str, ...] = ()) -> BackupSet:
    at = datetime(2026, 11, 23, 2, tzinfo=UTC)
    members = {
        source: SetMember(
            backup_id=f"{SET}-{source}",
            kind="full",
            consistent_at=at + timedelta(seconds=second),
            verified=verified,
        )
        for source, second in (("postgres", 0), ("redis", 90))
    }
    return BackupSet.of(SET, Component.DATABASE, members, missing=missing, recorded_at=at)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (recorded_set(), ["complete", "90.0 s", "postgres, redis", "-"]),
        (
            recorded_set(missing=("vector",)),
            ["incomplete", "90.0 s", "postgres, redis, vector", "vector"],
        ),
        (recorded_set(verified=False), ["incomplete", "90.0 s", "postgres, redis"]),
        (None, ["damaged", "?"]),
    ],
)
def test_a_set_is_listed_with_its_state_its_skew_and_what_it_lacks(
    found: BackupSet | None, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    problems = {} if found else {"primary": "primary:sets/x is not the document"}
    one = ListedSet(set_id=SET, component=Component.DATABASE, found=found, problems=problems)
    now = datetime(2026, 11, 23, 5, tzinfo=UTC)
    assert render_sets.listed([one], stores=["primary"], unreachable={}, now=now) == 1
    printed = capsys.readouterr().out
    row = printed.splitlines()[1]
    assert row.startswith(f"{SET}  database   3 h")
    for word in words:
        assert f"  {word}" in row
    if found is None:
        assert f"The set {SET} in primary: primary:sets/x is not the document" in printed


def test_a_chain_is_seen_at_a_glance(capsys: pytest.CaptureFixture[str]) -> None:
    kinds = [
        ("full", None, "", "full"),
        ("incremental", f"{SET}-postgres", "", f"-> {SET}"),
        ("full", None, "restore-1", "full, saved"),
    ]
    for kind, parent, before, shown in kinds:
        manifest = Manifest(
            backup_id=BACKUP,
            set_id=SET,
            component=Component.DATABASE,
            source="postgres",
            engine="postgresql",
            attempt="a1b2c3d4",
            kind=kind,
            parent=parent,
            before_restore=before,
            stages=(),
            dump=Dump(
                server_version="18", consistency={"time": "2026-11-23T02:00:00+00:00"}, facts={}
            ),
            members=(),
            started_at=datetime(2026, 11, 23, 2, tzinfo=UTC),
            finished_at=datetime(2026, 11, 23, 2, tzinfo=UTC),
            product="test",
        )
        found = Listed(manifest.ref, {"primary": manifest}, {}, {})
        render.backups([found], stores=["primary"], unreachable={}, now=manifest.finished_at)
        row = capsys.readouterr().out.splitlines()[1]
        assert row.startswith(f"{BACKUP}  {shown}  ")
        render.backups_json([found], unreachable={}, now=manifest.finished_at)
        (body,) = json.loads(capsys.readouterr().out)["backups"]
        assert (body["kind"], body["parent"], body["before_restore"]) == (
            *(kind, parent, before or None),
        )


def test_the_types_on_the_command_line_are_those_of_the_service() -> None:
    assert list(make.Type) == list(BackupType)


def test_the_levels_on_the_command_line_are_those_of_the_model() -> None:
    assert [depth.level.name.lower() for depth in make.Depth] == [
        depth.value for depth in make.Depth
    ]
