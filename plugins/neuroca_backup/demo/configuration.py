"""What the demo configures: backup.yaml, connections, and the environment of Airflow."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import yaml

from neuroca_backup.demo.place import Place
from neuroca_backup.demo.sources import SOURCES
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.settings import sample_text

USER = "admin"
# Who triggers a restore in place or a recovery cannot approve it.
SECOND_USER = "approver"
METADATA_DATABASE = "airflow"
CATALOG_DATABASE = "neuroca_backup"

# Connection ids as in config/connections.sample.yaml, and the server of the sandbox behind each.
_SERVERS = {
    "neuroca_postgres": "postgres",
    "neuroca_mongodb": "mongodb",
    "neuroca_redis": "redis",
    "neuroca_milvus": "milvus",
    "neuroca_aws": "s3_us_west_2",
    "neuroca_aws_dr": "s3_eu_central_1",
}
_CATALOG = "neuroca_catalog"
_AIRFLOW = "neuroca_airflow"
# What the demo's own data promises: the other tiers name episodes.
_EPISODES = {"source": "episodic", "place": "episodes", "field": "episode_id"}
_AGREEMENT = (
    {
        "name": "working memory names episodes",
        "every": {
            "source": "working",
            "place": "memory:stm:metadata:*",
            "field": "episode_id",
        },
        "among": _EPISODES,
    },
    {
        "name": "semantic memory names episodes",
        "every": {
            "source": "semantic",
            "place": "neuroca_semantic",
            "field": "metadata.episode_id",
        },
        "among": _EPISODES,
    },
)
# Facts for us that are no words of a connection.
_NOT_EXTRA = ("bucket", "kms_key_arn")


def backup_yaml(place: Place, servers: Mapping[str, Endpoint]) -> str:
    """Return the project's own backup.yaml with the stores, keys and places of the demo."""
    document: dict[str, Any] = yaml.safe_load(sample_text())
    backup = document["backup"]
    west, central = servers["s3_us_west_2"], servers["s3_eu_central_1"]
    backup["storage"] = {
        "primary": _bucket(west, "neuroca_aws"),
        "secondary": _bucket(central, "neuroca_aws_dr"),
    }
    backup["encryption"] = {
        "enabled": True,
        "key_management": "kms",
        "kms_key_id": west.extra["kms_key_arn"],
        "kms_connection": "neuroca_aws",
        "secondary_kms_key_id": central.extra["kms_key_arn"],
        "secondary_kms_connection": "neuroca_aws_dr",
        "recovery_public_key": str(place.recovery / "public.pem"),
    }
    backup["sources"] = {source.name: source.settings(place.files) for source in SOURCES}
    # A schedule of nothing would be warned about.
    sourced = {source["component"] for source in backup["sources"].values()}
    backup["schedule"] = {c: cron for c, cron in backup["schedule"].items() if c in sourced}
    backup["pipeline"] = {"mode": "staged", "spool": str(place.spool)}
    backup["catalog"] = {"connection": _CATALOG}
    backup["agreement"] = [dict(one) for one in _AGREEMENT]
    return yaml.safe_dump(document, sort_keys=False)


def connections(servers: Mapping[str, Endpoint], metadata: Endpoint) -> dict[str, str]:
    """Return every connection as the variable that Airflow and our command read it from."""
    found = {name: servers[kind] for name, kind in _SERVERS.items()}
    found[_CATALOG] = _in_database(metadata, CATALOG_DATABASE)
    found[_AIRFLOW] = _in_database(metadata, METADATA_DATABASE)
    return {f"AIRFLOW_CONN_{name.upper()}": _as_json(one) for name, one in found.items()}


def airflow_environment(place: Place, metadata: Endpoint, *, port: int) -> dict[str, str]:
    """Return what makes an Airflow of its own below `.demo`, reachable from this machine only."""
    secrets = place.secrets()
    address = f"http://127.0.0.1:{port}"
    login = f"{quote(metadata.user, safe='')}:{quote(metadata.password, safe='')}"
    database = f"{login}@{metadata.host}:{metadata.port}/{METADATA_DATABASE}"
    return {
        "AIRFLOW_HOME": str(place.airflow),
        "NEUROCA_BACKUP_CONFIG": str(place.settings),
        "NO_PROXY": "127.0.0.1,localhost",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__CORE__DAGS_FOLDER": str(place.repository / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(place.repository / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__FERNET_KEY": secrets["fernet"],
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin,{SECOND_USER}:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(place.passwords),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://{database}",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": address,
        "AIRFLOW__API__SECRET_KEY": secrets["api"],
        "AIRFLOW__API__INSTANCE_NAME": "NCA backups (demo)",
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets["jwt"],
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{address}/execution/",
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH": str(place.airflow / "bundles"),
        # Seconds; the default of 1 is most of what a short task costs.
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.1",
    }


def shell(environment: Mapping[str, str]) -> str:
    """Return `environment` as lines that a shell can source; `parse_shell` reads them back."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in environment.items())


def parse_shell(text: str) -> dict[str, str]:
    """Return what `shell` wrote."""
    words = (shlex.split(line)[1].partition("=") for line in text.splitlines())
    return {name: value for name, _, value in words}


def _bucket(region: Endpoint, connection: str) -> dict[str, str]:
    return {
        "type": "s3",
        "bucket": region.extra["bucket"],
        "region": region.extra["region_name"],
        "path": "/backups",
        "connection": connection,
    }


def _in_database(server: Endpoint, database: str) -> Endpoint:
    return Endpoint(
        kind=server.kind,
        host=server.host,
        port=server.port,
        user=server.user,
        password=server.password,
        database=database,
        extra=server.extra,
    )


def _as_json(endpoint: Endpoint) -> str:
    aws = endpoint.kind == "aws"  # its address is the `endpoint_url` in extra
    body = {
        "conn_type": endpoint.kind,
        "host": None if aws else endpoint.host,
        "port": None if aws else endpoint.port,
        "login": endpoint.user,
        "password": endpoint.password,
        "schema": endpoint.database,
        "extra": {k: v for k, v in endpoint.extra.items() if k not in _NOT_EXTRA},
    }
    return json.dumps({name: value for name, value in body.items() if value})
