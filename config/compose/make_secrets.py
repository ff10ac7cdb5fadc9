# ruff: noqa: INP001 - a script that is run by its path
"""Write the secret files that docker-compose.yaml mounts: `make_secrets.py DIRECTORY`.

Needs nothing but Python's standard library. Existing files are never touched, so that it can be
run again after an upgrade that added one. The directory is 0700: nobody but its owner gets past
it. The files are 0444, because each is bind-mounted for the unprivileged user of its container.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import sys
from pathlib import Path

METADATA = "metadata-db:5432"


def password(directory: Path, name: str) -> str:
    """Return the password in the file `name`, made up when there is none yet."""
    write(directory, name, secrets.token_urlsafe(32))
    return (directory / name).read_text()


def write(directory: Path, name: str, content: str) -> None:
    """Create the file `name` whole or not at all; leave one that exists as it is."""
    path = directory / name
    if path.exists():
        return
    draft = directory / f".{name}.draft"
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444), "w") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.chmod(0o444)  # whatever the umask says
    draft.rename(path)


def connections(directory: Path) -> dict[str, dict[str, object]]:
    """Return Airflow's connections to the services of the two optional profiles, by id."""

    def server(kind: str, host: str, port: int, **more: object) -> dict[str, object]:
        return {"conn_type": kind, "host": host, "port": port, **more}

    def emulator(region: str) -> dict[str, object]:
        endpoint = f"http://emulator-{region}:5000"
        return {
            "conn_type": "aws",
            "login": "emulator",
            "password": "emulator",
            "extra": {"region_name": region, "endpoint_url": endpoint},
        }

    return {
        "neuroca_postgres": server(
            "postgres",
            "postgres",
            5432,
            schema="neuroca",
            login="neuroca",
            password=password(directory, "postgres_password"),
        ),
        "neuroca_mongodb": server(
            "mongo",
            "mongodb",
            27017,
            login="neuroca",
            password=password(directory, "mongodb_password"),
            extra={"authSource": "admin", "replicaSet": "rs0"},
        ),
        "neuroca_redis": server(
            "redis", "redis", 6379, password=password(directory, "redis_password")
        ),
        "neuroca_milvus": server("milvus", "milvus", 19530),
        "neuroca_airflow": server(
            "postgres",
            "metadata-db",
            5432,
            schema="airflow",
            login="airflow",
            password=password(directory, "metadata_password"),
            extra={"fernet_key": (directory / "airflow_fernet_key").read_text()},
        ),
        "neuroca_catalog": server(
            "postgres",
            "metadata-db",
            5432,
            schema="neuroca_backup",
            login="neuroca_catalog",
            password=password(directory, "catalog_password"),
        ),
        "neuroca_aws": emulator("us-west-2"),
        "neuroca_aws_dr": emulator("eu-central-1"),
    }


def main(arguments: list[str]) -> int:
    """Write every file; return the process's exit code."""
    if len(arguments) != 1:
        sys.stderr.write("usage: make_secrets.py DIRECTORY (outside the repository)\n")
        return 2
    directory = Path(arguments[0]).absolute()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if directory.stat().st_mode & 0o077:
        sys.stderr.write(f"{directory} is open to others: run `chmod 700 {directory}` first.\n")
        return 1

    metadata = password(directory, "metadata_password")
    broker = password(directory, "broker_password")
    database = f"postgresql+psycopg2://airflow:{metadata}@{METADATA}/airflow"
    write(directory, "airflow_database_url", database)
    write(directory, "airflow_result_backend", f"db+{database}")
    write(directory, "airflow_broker_url", f"redis://:{broker}@broker:6379/0")
    write(directory, "broker_conf", f"requirepass {broker}\n")
    fernet = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
    write(directory, "airflow_fernet_key", fernet)
    for name in ("airflow_api_secret_key", "airflow_jwt_secret"):
        write(directory, name, secrets.token_urlsafe(64))
    password(directory, "airflow_admin_password")
    password(directory, "minio_password")
    write(directory, "mongodb_keyfile", base64.b64encode(secrets.token_bytes(512)).decode())
    redis = password(directory, "redis_password")
    write(directory, "redis_conf", f"requirepass {redis}\nmasterauth {redis}\n")
    write(directory, "airflow_connections", json.dumps(connections(directory), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
