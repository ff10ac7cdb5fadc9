"""The configuration through the whole system: files and Airflow's part, backed up and restored."""

from __future__ import annotations

import json
import logging
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from cryptography.fernet import Fernet
from typer.testing import CliRunner

from neuroca_backup import engines, sandbox
from neuroca_backup.catalog.memory import MemoryCatalog
from neuroca_backup.cli.app import app
from neuroca_backup.connections import FileConnections
from neuroca_backup.engines import RestoreTarget
from neuroca_backup.errors import (
    AccessDeniedError,
    ConfigurationError,
    NotFoundError,
    TargetRefusedError,
)
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.identity import BackupRef, set_id
from neuroca_backup.runtime import Runtime
from neuroca_backup.settings import Settings
from support.airflow_database import (
    MARKER,
    airflow_database,
    bare_database,
    put_connection,
    put_pool,
    put_variables,
    read_by_airflow,
)
from support.wiring import BOTH, connection, local_places, session, spool_names

if TYPE_CHECKING:
    from collections.abc import Sequence

PLUGINS = Path(__file__).resolve().parents[2] / "plugins"
APPROVED = ("--approved-by", "the owner", "--reason", "a test")


@dataclass(frozen=True)
class Stand:
    """A machine with a configuration, and what backs it up."""

    root: Path
    runtime: Runtime

    @property
    def tree(self) -> Path:
        return self.root / "etc" / "neuroca"

    def back_up(self, source: str = "configuration") -> BackupRef:
        moment = datetime.now(UTC)
        ref = self.runtime.ref(set_id(at=moment, run=f"{source} {moment.isoformat()}"), source)
        self.runtime.backups.run(ref, mode=self.runtime.settings.pipeline.mode)
        self.runtime.verifier.verify(ref)
        return ref

    def restore(
        self, ref: BackupRef, target: RestoreTarget, only: Sequence[str] = ()
    ) -> tuple[str, ...]:
        restores = self.runtime.restores
        plan = restores.plan(
            component=ref.component,
            source=ref.source,
            restore_id=f"restore-{ref.backup_id}",
            backup_id=ref.backup_id,
            only=only,
        )
        try:
            notes = [*restores.preflight(plan, target)]
            fetched = restores.fetch(plan)
            notes += restores.load(plan, fetched, target)
            restores.compare(plan, target)
            notes += restores.publish(plan, fetched, target)
        finally:
            restores.clear(plan.restore_id)
        return tuple(notes)


def stand(
    root: Path, *, mode: str = "staged", sources: dict[str, Any] | None = None, **environ: str
) -> Stand:
    tree = root / "etc" / "neuroca"
    (tree / "conf.d").mkdir(parents=True)
    (tree / "tls").mkdir(mode=0o700)
    (tree / "app.env").write_text(f"MODE=production\nDB_PASSWORD={MARKER}\n")
    (tree / "app.env").chmod(0o600)
    (tree / "conf.d" / "one.yaml").write_text("workers: 4\n")
    (tree / "conf.d" / "two.yaml").write_text(f"api_token: {MARKER}\n")
    (tree / "tls" / "server.key").write_text(f"-----BEGIN KEY-----\n{MARKER}\n")
    (tree / "big.json").write_bytes(MARKER.encode() + os.urandom(8 * 1024 * 1024))
    places = local_places(root)
    files = {
        "component": "configuration",
        "engine": "filetree",
        "options": {
            "environment": [str(tree / "app.env"), str(tree / "big.json")],
            "parameters": [str(tree / "conf.d" / "*.yaml")],
            "integrations": [{"path": str(tree / "absent"), "optional": True}],
            "security": [str(tree / "tls")],
        },
    }
    settings = {
        "schedule": {"configuration": "0 1 * * 0"},
        "storage": places.storage,
        "retention": {},
        "encryption": places.encryption,
        "pipeline": {"spool": str(root / "spool"), "mode": mode},
        "compression": {"level": 1, "threads": 1},
        "sources": {"configuration": files, **(sources or {})},
    }
    (root / "backup.yaml").write_text(yaml.safe_dump({"backup": settings}))
    runtime = Runtime.build(Settings.model_validate(settings), FileConnections(environ=environ))
    runtime.__dict__["catalog"] = MemoryCatalog()
    return Stand(root, runtime)


def content(root: Path) -> dict[str, tuple[int, int, bytes]]:
    return {
        path.relative_to(root).as_posix(): (
            path.stat().st_mode,
            path.stat().st_mtime_ns,
            b"" if path.is_dir() else path.read_bytes(),
        )
        for path in root.rglob("*")
    }


def said(runtime: Runtime, ref: BackupRef, log: str) -> str:
    """Everything that somebody without a key may come to see."""
    objects = [
        runtime.stores[store].get(found.key)
        for store in runtime.stores
        for found in runtime.stores[store].list(ref.prefix)
    ]
    rows = repr(vars(runtime.catalog))
    return "\n".join([log, rows, *(one.decode("latin-1") for one in objects)])


@pytest.mark.parametrize("mode", BOTH)
def test_files_come_back_exactly_and_no_secret_of_them_is_seen_anywhere(
    tmp_path: Path, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    here = stand(tmp_path, mode=mode)
    before = content(here.tree)
    ref = here.back_up()
    (here.tree / "app.env").write_text("MODE=lost\n")
    (here.tree / "conf.d" / "one.yaml").unlink()
    target = RestoreTarget(Endpoint.this_machine(tmp_path / "restored"))
    notes = here.restore(ref, target)
    assert f"Below {tmp_path}/restored: 6 paths added, 0 paths changed, 0 paths removed" in notes
    assert content(tmp_path / "restored" / here.tree.relative_to("/")) == {
        name: one for name, one in before.items() if name != "conf.d"
    } | {"conf.d": content(tmp_path / "restored" / here.tree.relative_to("/"))["conf.d"]}
    assert spool_names(here.runtime) == []
    everything = said(here.runtime, ref, caplog.text + repr(notes))
    assert "configuration" in everything
    assert MARKER not in everything
    assert here.runtime.stores["primary"].get(ref.manifest_key).count(b'"restricted"') == 1
    with pytest.raises(TargetRefusedError, match="not empty"):
        here.restore(ref, target)


def test_in_place_exactly_the_backup_is_there_and_what_was_is_kept_beside(tmp_path: Path) -> None:
    here = stand(tmp_path)
    before = content(here.tree)
    ref = here.back_up()
    (here.tree / "app.env").write_text("MODE=lost\n")
    (here.tree / "conf.d" / "one.yaml").unlink()
    (here.tree / "conf.d" / "three.yaml").write_text("new: true\n")
    (here.tree / "tls" / "more").touch()
    (here.tree / "absent").touch()
    (here.tree / "other").touch()
    place = RestoreTarget(here.runtime.endpoint("configuration"), replace=True)
    notes = here.restore(ref, place)
    assert "To their places: 1 paths added, 1 paths changed, 3 paths removed" in notes
    after = content(here.tree)
    kept = {name for name in after if "neuroca-replaced" in name}
    files = {name: one for name, one in after.items() if name not in kept}
    for name in ("conf.d", "other"):  # a directory of other files, and one that nobody listed
        files.pop(name)
    before.pop("conf.d")
    assert files == before
    assert {re.sub(r"\.neuroca.*?(/|$)", r"\1", name) for name in kept} == {
        *(".app.env", ".big.json", "conf.d/.two.yaml", "conf.d/.three.yaml", ".absent"),
        *("tls", "tls/more", "tls/server.key"),
    }
    assert (
        here.runtime.subject("configuration").engine.fingerprint(  # type: ignore[attr-defined]  # an optional ability
            place.endpoint, here.runtime.subject("configuration").options
        )
        == facts_of(here, ref)["fingerprint"]
    )
    with pytest.raises(TargetRefusedError, match="backed up itself"):
        here.restore(ref, RestoreTarget(Endpoint.this_machine(here.tree / "tls" / "restored")))


def facts_of(here: Stand, ref: BackupRef) -> dict[str, Any]:
    body = json.loads(here.runtime.stores["primary"].get(ref.manifest_key))
    facts: dict[str, Any] = body["body"]["manifest"]["dump"]["facts"]
    return facts


def test_a_part_is_a_section_or_a_path_and_the_rest_stays(tmp_path: Path) -> None:
    here = stand(tmp_path)
    ref = here.back_up()
    (here.tree / "app.env").write_text("MODE=lost\n")
    (here.tree / "tls" / "server.key").write_text("lost")
    place = RestoreTarget(here.runtime.endpoint("configuration"), replace=True)
    here.restore(ref, place, only=["security"])
    assert MARKER in (here.tree / "tls" / "server.key").read_text()
    assert (here.tree / "app.env").read_text() == "MODE=lost\n"
    here.restore(ref, place, only=[str(here.tree / "app.env")])
    assert MARKER in (here.tree / "app.env").read_text()
    for wrong in ("integrations", "environments", "/etc/../x", str(here.tree / "nothing")):
        with pytest.raises(ConfigurationError, match=re.escape(Path(wrong).name)):
            here.restore(ref, place, only=[wrong])


def test_what_is_listed_and_not_there_is_an_error_that_names_it_unless_optional(
    tmp_path: Path,
) -> None:
    here = stand(tmp_path)
    (here.tree / "conf.d" / "one.yaml").unlink()
    (here.tree / "conf.d" / "two.yaml").unlink()
    with pytest.raises(NotFoundError, match=r"conf\.d/\*\.yaml.*matches nothing"):
        here.back_up()
    (here.tree / "conf.d" / "one.yaml").symlink_to("/etc/hostname")
    with pytest.raises(ConfigurationError, match="symbolic link to /etc/hostname"):
        here.back_up()
    options = {"environment": [str(tmp_path)], "security": [str(tmp_path)]}
    subject = here.runtime.subject("configuration")
    with pytest.raises(ConfigurationError, match="both environment and security"):
        subject.engine.dump(subject.endpoint, None, subject.engine.options(options))  # type: ignore[arg-type]  # never used
    for bad in ("relative", "/", "/etc/../root", "/etc//x"):
        with pytest.raises(ConfigurationError, match=r"options\.environment\.0"):
            subject.engine.options({"environment": [bad]})
    with pytest.raises(ConfigurationError, match="at least one path"):
        subject.engine.options({})


@pytest.fixture
def airflow(postgres: Endpoint) -> Iterator[Endpoint]:
    """Airflow's metadata database with something of everything, and a secret in each."""
    with airflow_database(postgres) as endpoint:
        yield endpoint


def filled(endpoint: Endpoint, key: str) -> None:
    put_connection(
        endpoint,
        key,
        "my_db",
        host="db.example",
        login="nca",
        password=MARKER,
        port=5432,
        extra=json.dumps({"token": MARKER, "ümlaut": "\u2028"}),
    )
    put_connection(endpoint, key, "bare", description="nothing to hide")
    put_variables(endpoint, key, {"plain": "7", "secret": MARKER, "empty line": "a\n\nb\t\\"})
    put_pool(endpoint, "few", 3)


# What Airflow itself reads of `filled`.
READ = {
    "connections": {
        "bare": ["postgres", None, None, None, None, None],
        "my_db": [
            *("postgres", "db.example", "nca", MARKER, 5432),
            json.dumps({"token": MARKER, "ümlaut": "\u2028"}),
        ],
    },
    "variables": {"plain": "7", "secret": MARKER, "empty line": "a\n\nb\t\\"},
    "pools": {"default_pool": 128, "few": 3},
}


def variables(endpoint: Endpoint, key: str) -> dict[str, str]:
    with session(replace(endpoint, extra={"sslmode": "disable"})) as opened:
        rows = opened.execute("SELECT key, val FROM variable WHERE is_encrypted").fetchall()
    return {name: Fernet(key).decrypt(value.encode()).decode() for name, value in rows}


def test_airflow_reads_back_itself_what_was_restored_under_another_fernet_key(
    tmp_path: Path, postgres: Endpoint, airflow: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    filled(airflow, old)
    keyed = replace(airflow, extra={**airflow.extra, "fernet_key": old})
    source = {"component": "configuration", "engine": "airflow_metadata", "connection": "meta"}
    here = stand(
        tmp_path,
        sources={"airflow": source},
        AIRFLOW_CONN_META=connection(keyed, "postgres"),
    )
    ref = here.back_up("airflow")
    with airflow_database(postgres) as other:
        target = RestoreTarget(replace(other, extra={**other.extra, "fernet_key": new}))
        notes = here.restore(ref, target)
        assert "Connections, variables and pools: 6 added, 0 changed, 0 removed" in notes
        assert read_by_airflow(other, new) == READ
        restored = variables(other, new)
        put_variables(other, new, {"plain": "8", "secret": "other", "more": "1"})
        with pytest.raises(TargetRefusedError, match="has the connection bare"):
            here.restore(ref, target)
        replaced = replace(target, replace=True)
        here.restore(ref, replaced, only=["variable=secret", "connection=my_db"])
        assert variables(other, new) == {**restored, "plain": "8", "more": "1"}
        notes = here.restore(ref, replaced)
        assert "Connections, variables and pools: 0 added, 1 changed, 1 removed" in notes
        assert variables(other, new) == restored
        wrong = replace(other, extra={**other.extra, "fernet_key": old})
        with pytest.raises(ConfigurationError, match="does not open") as caught:
            here.restore(ref, RestoreTarget(wrong, replace=True))
        assert old not in str(caught.value)
    everything = said(here.runtime, ref, caplog.text + repr(notes))
    assert MARKER not in everything
    assert old not in everything
    assert new not in everything
    assert spool_names(here.runtime) == []


def test_a_wrong_or_missing_fernet_key_is_an_error_that_shows_no_secret(
    tmp_path: Path, airflow: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = Fernet.generate_key().decode()
    filled(airflow, key)
    source = {"component": "configuration", "engine": "airflow_metadata", "connection": "meta"}
    here = stand(
        tmp_path, sources={"airflow": source}, AIRFLOW_CONN_META=connection(airflow, "postgres")
    )
    monkeypatch.delenv("AIRFLOW__CORE__FERNET_KEY", raising=False)
    with pytest.raises(ConfigurationError, match="There is no Fernet key"):
        here.back_up("airflow")
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", Fernet.generate_key().decode())
    with pytest.raises(ConfigurationError, match=r"does not open .* of the connection my_db"):
        here.back_up("airflow")
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", f"{Fernet.generate_key().decode()},{key}")
    here.back_up("airflow")
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "nonsense")
    with pytest.raises(ConfigurationError, match="holds no Fernet key") as caught:
        here.back_up("airflow")
    assert "nonsense" not in str(caught.value)
    file = tmp_path / "fernet.key"
    file.touch(mode=0o604)
    file.chmod(0o604)
    engine: Any = engines.named("airflow_metadata")
    with pytest.raises(AccessDeniedError, match="may be used by others"):
        engine.fingerprint(airflow, engine.options({"fernet_key_file": file}))
    with pytest.raises(ConfigurationError, match="no absolute path") as caught:
        engine.options({"fernet_key_file": key})
    assert key not in str(caught.value)


def test_the_fingerprint_of_airflow_ignores_how_it_is_encrypted_and_sees_every_value(
    tmp_path: Path, airflow: Endpoint
) -> None:
    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    here = stand(tmp_path)
    engine: Any = engines.named("airflow_metadata")
    keyed = replace(airflow, extra={**airflow.extra, "fernet_key": f"{new},{old}"})
    filled(airflow, old)
    first = engine.fingerprint(keyed, engine.options({}))
    filled(airflow, new)
    assert engine.fingerprint(keyed, engine.options({})) == first
    put_variables(airflow, new, {"plain": "8"})
    assert engine.fingerprint(keyed, engine.options({})) != first
    assert here.root.is_dir()


def test_the_sandbox_s_tables_are_those_of_airflow(sandbox_root: Path, airflow: Endpoint) -> None:
    question = (
        "SELECT table_name, column_name, data_type, character_maximum_length, is_nullable"
        " FROM information_schema.columns WHERE table_schema = 'public'"
        " AND table_name IN ('connection', 'variable', 'slot_pool') ORDER BY 1, 2"
    )
    with sandbox.running("airflow_metadata", sandbox_root.parent / "meta") as endpoint:
        plain = replace(endpoint, extra={"sslmode": "disable"})
        with session(plain) as ours, session(airflow) as theirs:
            found = ours.execute(question).fetchall()
            expected = theirs.execute(question).fetchall()
    assert [row[:4] for row in found] == [row[:4] for row in expected]


def command(here: Stand, *words: str) -> tuple[int, str, str]:
    """Run the command in this process."""
    ended = CliRunner().invoke(app, ["--config-path", str(here.root / "backup.yaml"), *words])
    if ended.exception is not None and not isinstance(ended.exception, SystemExit):
        raise ended.exception
    return ended.exit_code, ended.stdout, ended.stderr


def test_the_command_backs_up_and_restores_to_a_directory_or_a_private_one(tmp_path: Path) -> None:
    here = stand(tmp_path)
    code, out, said_aside = command(here, "backup", "configuration")
    assert code == 0, said_aside
    assert "restricted" in out
    words = ("restore", "configuration")
    elsewhere = tmp_path / "elsewhere"
    code, out, _ = command(here, *words, "--target-directory", str(elsewhere), "--dry-run")
    assert code == 0
    assert "6 paths added" in out
    assert not elsewhere.exists()
    assert command(here, *words, "--target-directory", str(elsewhere))[0] == 0
    found = elsewhere / here.tree.relative_to("/")
    assert (found / "app.env").read_bytes() == (here.tree / "app.env").read_bytes()
    code, out, _ = command(here, *words, "--sandbox", "--no-wait")
    assert code == 0
    assert "compared with what was backed up" in out
    assert spool_names(here.runtime) == []
    assert command(here, *words, "--target-directory", "/")[0] == 1
    assert command(here, *words, "--target-directory", str(elsewhere), "--sandbox")[0] == 2
    shown = command(here, "list", "--json")[1]
    assert json.loads(shown)["backups"][0]["classification"] == "restricted"


def test_restricted_data_comes_out_in_clear_only_with_an_approval_that_is_recorded(
    tmp_path: Path,
) -> None:
    here = stand(tmp_path)
    ref = here.back_up()
    output = tmp_path / "out"
    for words in (("config-export",), ("decrypt", ref.backup_id, "tree.tar")):
        code, _, said_aside = command(here, *words, "--output", str(output))
        assert code == 1
        assert "It is restricted" in said_aside
        assert "--approved-by NAME --reason TEXT" in said_aside
        assert command(here, *words, "--output", str(output), *APPROVED[:2])[0] == 2
        assert not output.exists()
    code, _, said_aside = command(
        here, "decrypt", ref.backup_id, "tree.tar", "--output", str(output), *APPROVED
    )
    assert code == 0
    assert "recorded: approved by the owner: a test" in said_aside
    assert output.stat().st_size > 0


@pytest.mark.parametrize("name", ["exported", "exported.tar"])
def test_an_export_is_imported_elsewhere_or_in_place_and_shown_first(
    tmp_path: Path, name: str
) -> None:
    here = stand(tmp_path)
    before = content(here.tree)
    output = tmp_path / name
    code, out, _ = command(here, "config-export", "--output", str(output), *APPROVED)
    assert code == 0, out
    assert output.stat().st_mode & 0o077 == 0
    assert command(here, "config-export", "--output", str(output), *APPROVED)[0] == 1  # it is there
    (here.tree / "app.env").write_text("MODE=lost\nDB_PASSWORD=other\n")
    (here.tree / "conf.d" / "new.yaml").touch()
    code, out, said_aside = command(here, "config-import", "--input", str(output), "--diff")
    assert code == 0
    assert f"changed  {here.tree}/app.env (content, mode)" not in out
    assert f"changed  {here.tree}/app.env (content)" in out
    assert f"removed  {here.tree}/conf.d/new.yaml" in out
    assert "Nothing was touched" in out
    assert "Only the paths are shown. It is restricted" in said_aside
    assert MARKER not in out
    assert (here.tree / "app.env").read_text() == "MODE=lost\nDB_PASSWORD=other\n"
    elsewhere = str(tmp_path / "elsewhere")
    words = ("config-import", "--input", str(output))
    assert command(here, *words, "--target-directory", elsewhere)[0] == 0
    found = content(Path(elsewhere) / here.tree.relative_to("/"))
    assert {k: v for k, v in found.items() if k != "conf.d"} == {
        k: v for k, v in before.items() if k != "conf.d"
    }
    assert command(here, *words, "--in-place")[0] == 2
    code, out, _ = command(here, *words, "--in-place", "--confirm", "configuration")
    assert code == 0
    assert "kept as .app.env.neuroca-replaced-" in out
    assert content(here.tree)["app.env"] == before["app.env"]
    assert not (here.tree / "conf.d" / "new.yaml").exists()
    assert spool_names(here.runtime) == []
    assert not list(tmp_path.glob(".*.partial"))


def test_a_damaged_export_is_refused_before_anything_is_touched(tmp_path: Path) -> None:
    here = stand(tmp_path)
    output = tmp_path / "exported"
    assert command(here, "config-export", "--output", str(output), *APPROVED)[0] == 0
    before = content(here.tree)
    tar = output / "configuration" / "files" / "tree.tar"
    whole = tar.read_bytes()
    for harmed in (whole.replace(b"workers: 4", b"workers: 5"), whole[:-1], b""):
        tar.write_bytes(harmed)
        words = ("--in-place", "--confirm", "configuration")
        code, _, said_aside = command(here, "config-import", "--input", str(output), *words)
        assert code == 4
        assert "tree.tar" in said_aside
    tar.unlink()
    assert command(here, "config-import", "--input", str(output))[0] == 4
    assert content(here.tree) == before
    for wrong in ("config.yaml", "absent/exported"):
        assert command(here, "config-export", "--output", str(tmp_path / wrong), *APPROVED)[0] == 2
    assert command(here, "config-import", "--input", str(tmp_path / "absent"))[0] == 2


def test_on_a_terminal_the_lines_are_shown_and_their_secrets_masked(tmp_path: Path) -> None:
    here = stand(tmp_path)
    output = tmp_path / "exported"
    assert command(here, "config-export", "--output", str(output), *APPROVED)[0] == 0
    (here.tree / "app.env").write_text("MODE=lost\nDB_PASSWORD=other-Secret-1\n")
    (here.tree / "tls" / "server.key").write_text("other-Secret-2\n")
    words = ["config-import", "--input", str(output), "--diff"]
    ours, theirs = pty.openpty()
    done = subprocess.Popen(
        [sys.executable, "-m", "neuroca_backup", "--config-path", tmp_path / "backup.yaml", *words],
        stdout=theirs,
        stderr=theirs,
        stdin=subprocess.DEVNULL,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(PLUGINS), "COLUMNS": "200"},
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # the terminal's other end is closed
            break
        if not piece:
            break
        shown += piece
    os.close(ours)
    assert done.wait(60) == 0, shown
    text = shown.decode()
    assert "-MODE=lost" in text
    assert "+MODE=production" in text
    assert len(set(re.findall(r"[-+]DB_PASSWORD=\*\*\*([0-9a-f]{6})", text))) == 2
    assert "server.key differs; what it holds is not shown" in text
    for secret in (MARKER, "other-Secret-1", "other-Secret-2"):
        assert secret not in text


def test_the_documented_privileges_are_enough_and_without_them_the_lack_is_named(
    tmp_path: Path, postgres: Endpoint
) -> None:
    database = bare_database(postgres, "airflow_privileges")
    filled(database, key := Fernet.generate_key().decode())
    page = (PLUGINS.parent / "docs" / "reference" / "airflow-metadata.md").read_text()
    backing_up, restoring = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    role, password = "neuroca_limited", "limited"
    words = {"neuroca_backup": role, "DATABASE airflow": f"DATABASE {database.database}"}

    def grant(statements: str) -> None:
        for old, new in words.items():
            statements = statements.replace(old, new)
        with session(database) as opened:
            opened.execute(statements.replace("'...'", f"'{password}'").encode())

    with session(database) as opened:
        opened.execute("CREATE TABLE alembic_version (version_num text)")
    limited = replace(
        database,
        user=role,
        password=password,
        extra={**database.extra, "fernet_key": key},
    )
    here = stand(
        tmp_path,
        sources={
            "airflow": {
                "component": "configuration",
                "engine": "airflow_metadata",
                "connection": "meta",
            }
        },
        AIRFLOW_CONN_META=connection(limited, "postgres"),
    )
    try:
        with session(database) as opened:
            opened.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{password}'".encode())
        with pytest.raises(AccessDeniedError, match="may not read the table connection"):
            here.back_up("airflow")
        grant(backing_up.partition("\n")[2])
        ref = here.back_up("airflow")
        with pytest.raises(AccessDeniedError, match="permission denied for database"):
            here.restore(ref, RestoreTarget(limited, replace=True))
        grant(restoring)
        put_variables(database, key, {"plain": "8"})
        here.restore(ref, RestoreTarget(limited, replace=True))
        assert variables(database, key)["plain"] == "7"
    finally:
        with session(database) as opened:
            opened.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())
