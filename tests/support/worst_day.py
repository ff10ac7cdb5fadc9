"""The worst day: what is lost, a machine without Airflow, and the page that is followed there."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from cryptography.fernet import Fernet

from command_stand import PASSPHRASE, connection
from neuroca_backup.keyring.recovery import generate_recovery_pair
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.sandbox import seed_files, seed_redis
from support.airflow_database import MARKER, airflow_database, put_connection, put_variables
from support.redis_keys import client_of, flush
from support.wiring import count_rows, create_database, drop_databases, scratch_database, session

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "runbooks" / "airflow-is-gone.md"
_FENCE = re.compile(r"```(\w*)\n(.*?)```\n", re.DOTALL)


def _sections() -> dict[str, str]:
    """Return the text of every section of the page by its heading."""
    _, *parts = re.split(r"^## (.*)\n", PAGE.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def _blocks(language: str) -> list[str]:
    return [text for found, text in _FENCE.findall(PAGE.read_text()) if found == language]


def yaml_of_the_page() -> str:
    """Return the one file that the page shows."""
    (found,) = _blocks("yaml")
    return str(found)


def sql_of_the_page() -> str:
    """Return the one text of SQL that the page shows."""
    (found,) = _blocks("sql")
    return str(found)


@dataclass
class Machine:
    """A folder with the repository; its shell has been told what the page's exports say."""

    folder: Path
    _exports: list[str] = field(default_factory=list)
    _followed: list[str] = field(default_factory=list)

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o600)

    def read(self, name: str) -> str:
        return (self.folder / name).read_text()

    def follow(self, heading: str, *, until: str = "", after: str = "") -> str:
        """Run the commands of a section, the line `until` included, or those after `after`."""
        lines = "".join(
            text for language, text in _FENCE.findall(_sections()[heading]) if language == "sh"
        ).splitlines()
        if until:
            lines = lines[: lines.index(until)]
        if after:
            lines = lines[lines.index(after) :]
        self._followed += lines
        printed = ""
        for line in lines:
            printed += self._run(line)
            if line.startswith("export "):
                self._exports.append(line)
        return printed

    def left_out(self) -> list[str]:
        """Return the lines of the page that were not followed."""
        page = [line for text in _blocks("sh") for line in text.splitlines()]
        return [line for line in page if line not in self._followed]

    def _run(self, line: str) -> str:
        if "BACKUP_ID" in line:
            listed = self._run("neuroca-backup list --source airflow --json")
            line = line.replace("BACKUP_ID", json.loads(listed)["backups"][0]["backup_id"])
        script = "\n".join(["set -euo pipefail", *self._exports, line])
        kept = {
            name: value
            for name, value in os.environ.items()
            if name in {"HOME", "TMPDIR", "SSL_CERT_FILE"} or name.startswith("PIP_")
        }
        python = Path(sys.base_prefix) / "bin"
        ended = subprocess.run(
            ["/bin/bash", "-c", script],
            cwd=self.folder,
            env={**kept, "PATH": f"{python}:{os.environ['PATH']}"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert ended.returncode == 0, f"{line!r} exited {ended.returncode}: {ended.stderr}"
        return ended.stdout


@dataclass
class Installation:
    """What is backed up, on the old servers, and the new ones that it comes back to."""

    folder: Path
    old: Mapping[str, Endpoint]
    new: Mapping[str, Endpoint]
    stores: Mapping[str, Endpoint]
    fernet_key: str
    path: str
    offline: dict[str, str]
    sources: dict[str, Any] = field(default_factory=dict)
    expected_keys: int = 0

    @property
    def tree(self) -> Path:
        return self.folder / "etc"

    def filled(self, text: str) -> str:
        """Return `text` with the page's words in capitals replaced."""
        primary, secondary = self.stores["us-west-2"], self.stores["eu-central-1"]
        words = {
            "BUCKET_2": secondary.extra["bucket"],
            "REGION_2": secondary.extra["region_name"],
            "KEY_ARN_2": secondary.extra["kms_key_arn"],
            "BUCKET": primary.extra["bucket"],
            "REGION": primary.extra["region_name"],
            "KEY_ARN": primary.extra["kms_key_arn"],
            "FOLDER": str(self.folder / "rescue"),
            "PATH": self.path,
        }
        return re.sub(r"\b[A-Z][A-Z_]+(_2)?\b", lambda found: str(words[found[0]]), text)

    def connections_of_the_stores(self) -> dict[str, Any]:
        return {
            "store": json.loads(connection(self.stores["us-west-2"], "aws")),
            "store_2": json.loads(connection(self.stores["eu-central-1"], "aws")),
        }

    def connections_of_the_new_servers(self) -> dict[str, Any]:
        return {**self.connections_of_the_stores(), **_connections(self.new)}

    def back_up(self) -> None:
        """Back everything up with the command of this repository."""
        environment = {
            **{name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ},
            "PYTHONPATH": str(REPOSITORY / "plugins"),
            "NEUROCA_BACKUP_CONFIG": str(self.tree / "backup.yaml"),
            "NEUROCA_BACKUP_CONNECTIONS": str(self.folder / "old.yaml"),
            "AIRFLOW__CORE__FERNET_KEY": self.fernet_key,
        }
        ended = subprocess.run(
            [sys.executable, "-m", "neuroca_backup", "backup", "all"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr

    def files(self) -> dict[str, bytes]:
        """Return all files that are backed up, by their paths."""
        return {
            str(path): path.read_bytes()
            for folder in ("etc", "models", "logs")
            for path in (self.folder / folder).rglob("*")
            if path.is_file() and "neuroca-replaced" not in str(path)
        }

    def lose_everything(self) -> None:
        """Take the files and the database away; the old servers are not named any more."""
        for name in ("etc", "models", "logs", "spool"):
            shutil.rmtree(self.folder / name)
        (self.folder / "old.yaml").unlink()
        drop_databases(self.new["elsewhere"], like=self.old["postgres"].database)

    def rows(self) -> int:
        return count_rows(self.new["postgres"], self.new["postgres"].database)

    def keys(self) -> int:
        return _keys(self.new["redis"])

    def rows_of_airflow(self, table: str) -> int:
        with session(self.new["airflow"]) as opened:
            row = opened.execute(f"SELECT count(*) FROM {table}").fetchone()  # type: ignore[arg-type]  # noqa: S608 - a test's own word
        assert row is not None
        return int(row[0])

    def delete_with(self, statements: str) -> None:
        with session(self.new["airflow"]) as opened:
            opened.execute(statements)  # type: ignore[call-overload]  # the page's own text

    def password_in_airflow(self, fernet_key: str) -> str:
        """Return what is read with `fernet_key`."""
        with session(self.new["airflow"]) as opened:
            row = opened.execute("SELECT password FROM connection").fetchone()
        assert row is not None
        return Fernet(fernet_key.strip()).decrypt(row[0].encode()).decode()


def _keys(endpoint: Endpoint) -> int:
    count = 0
    for database in (0, 1):
        with client_of(endpoint, database) as client:
            count += sum("memory:stm" in str(key) for key in client.scan_iter(count=1000))
    return count


def _connections(endpoints: Mapping[str, Endpoint]) -> dict[str, Any]:
    kinds = {"redis": "redis"}
    return {
        name: json.loads(connection(endpoint, kinds.get(name, "postgres")))
        for name, endpoint in endpoints.items()
    }


@contextmanager
def installation(
    folder: Path,
    *,
    old: tuple[Endpoint, Endpoint],
    new: tuple[Endpoint, Endpoint],
    stores: Mapping[str, Endpoint],
) -> Iterator[Installation]:
    """Give an installation with a source of every component; servers are PostgreSQL and Redis."""
    word = secrets.token_hex(4)
    generate_recovery_pair(
        folder / "recovery.pem", folder / "recovery.pub.pem", PASSPHRASE.encode()
    )
    with ExitStack() as stack:
        database = stack.enter_context(scratch_database(old[0], f"worst_{word}", also_on=[new[0]]))
        airflow = stack.enter_context(airflow_database(old[0]))
        catalog = f"catalog_{word}"
        for name in (database.database, airflow.database, catalog):
            stack.callback(drop_databases, new[0], like=name)
            create_database(new[0], name)
        flush(old[1], new[1])
        stack.callback(flush, old[1], new[1])
        seed_redis.seed(old[1], scale=0.02)
        made = Installation(
            folder=folder,
            old={
                "postgres": database,
                "airflow": airflow,
                "redis": old[1],
                "catalog": replace(new[0], database=catalog),
            },
            new={
                "postgres": replace(new[0], database=database.database),
                "airflow": replace(new[0], database=airflow.database),
                "redis": new[1],
                # No source is there, so that it may be restored to.
                "elsewhere": replace(old[0], database="postgres"),
                "catalog": replace(new[0], database=catalog),
            },
            stores=stores,
            fernet_key=Fernet.generate_key().decode(),
            path=f"/{word}",
            offline={
                "recovery.pem": (folder / "recovery.pem").read_text(),
                "passphrase.txt": PASSPHRASE + "\n",
            },
        )
        made.offline["fernet.key"] = made.fernet_key + "\n"
        _fill(made, airflow)
        yield made


def _fill(made: Installation, airflow: Endpoint) -> None:
    put_connection(airflow, made.fernet_key, "neuroca_db", login="nca", password=MARKER)
    put_variables(airflow, made.fernet_key, {"word": MARKER})
    with session(airflow) as opened:
        opened.execute("INSERT INTO log (dttm, event) VALUES (now(), 'nca')")
    made.expected_keys = _keys(made.old["redis"])
    seed_files.seed(made.folder / "seed", scale=0.02)
    for name in ("models", "logs"):
        (made.folder / "seed" / name).rename(made.folder / name)
    made.tree.mkdir(mode=0o700)
    (made.tree / "app.env").write_text(f"MODE=production\nDB_PASSWORD={MARKER}\n")
    made.sources = _sources(made)
    rescue = yaml.safe_load(made.filled(yaml_of_the_page()))["backup"]
    settings = {
        **rescue,
        "encryption": {
            **rescue["encryption"],
            "recovery_public_key": str(made.folder / "recovery.pub.pem"),
        },
        "pipeline": {"spool": str(made.folder / "spool")},
        "compression": {"level": 1, "threads": 1},
        "catalog": {"connection": "catalog"},
        "sources": made.sources,
    }
    (made.tree / "backup.yaml").write_text(yaml.safe_dump({"backup": settings}))
    old = {**made.connections_of_the_stores(), **_connections(made.old)}
    (made.folder / "old.yaml").write_text(json.dumps(old))
    (made.folder / "old.yaml").chmod(0o600)


def _sources(made: Installation) -> dict[str, Any]:
    def one(component: str, engine: str, via: str = "", **options: Any) -> dict[str, Any]:
        words = {"connection": via} if via else {}
        return {"component": component, "engine": engine, "options": options, **words}

    def only(name: str) -> Sequence[str]:
        return [made.old[name].database]

    folder = made.folder
    return {
        "configuration": one("configuration", "filetree", parameters=[str(made.tree)]),
        "airflow": one("configuration", "airflow_metadata", "airflow"),
        "airflow_db": one("database", "postgresql", "airflow", databases=only("airflow")),
        "postgres": one("database", "postgresql", "postgres", databases=only("postgres")),
        "working": one("memory_tiers", "working_memory", "redis"),
        "models": one("model_weights", "model_weights", roots=[str(folder / "models")]),
        "logs": one("logs", "logs", application=[str(folder / "logs")]),
    }
