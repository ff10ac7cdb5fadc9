"""Connections without Airflow: from its environment variables, and from a private file.

The formats are Airflow's own, so what is set up for it serves the command, too:
https://airflow.apache.org/docs/apache-airflow/stable/howto/connection.html
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from neuroca_backup.errors import ConfigurationError
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.settings.yaml_document import read

PATH_VARIABLE = "NEUROCA_BACKUP_CONNECTIONS"
VARIABLE_PREFIX = "AIRFLOW_CONN_"

# Of the whole call, the first one included; standard mode waits longer before each.
AWS_ATTEMPTS = 5
AWS_CONNECT_SECONDS = 5
AWS_READ_SECONDS = 60

_KEYS = frozenset(
    {"conn_id", "conn_type", "host", "login", "password", "port", "schema", "description"}
    | {"extra", "extra_dejson"}
)
_FORMAT = (
    "Write conn_type, host, port, login, password, schema and extra as JSON or as YAML keys, or "
    "an address such as postgres://login:password@host:5432/schema, percent-encoded."
)


class FileConnections:
    """Finds connections in `AIRFLOW_CONN_<ID>`, then in the YAML file at `path`.

    Without `path` the file is the one that `NEUROCA_BACKUP_CONNECTIONS` names, if any. It is
    opened at the first id that no variable has, and read once.
    """

    def __init__(
        self, path: Path | None = None, *, environ: Mapping[str, str] | None = None
    ) -> None:
        self._environ = os.environ if environ is None else environ
        named = self._environ.get(PATH_VARIABLE)
        self._path = path or (Path(named) if named else None)
        self._entries: Mapping[str, Any] | None = None
        self._clients: dict[tuple[str, str | None, str | None], Any] = {}
        # boto3 sessions are not safe to build in several threads; clients are safe to share.
        self._lock = Lock()

    def endpoint(self, connection_id: str) -> Endpoint:
        """Return the endpoint of `connection_id`.

        Raises:
            ConfigurationError: Neither place has it, or what it says is no connection. No value
                of a connection is ever a part of the message.
        """
        variable = VARIABLE_PREFIX + connection_id.upper()
        value = self._environ.get(variable)
        if value:
            return _endpoint(value, where=f"the environment variable {variable}")
        entries = self._file_entries()
        if connection_id in entries:
            return _endpoint(entries[connection_id], where=f"{connection_id} in {self._path}")
        file = self._path or f"the file that {PATH_VARIABLE} names (it is not set)"
        raise ConfigurationError(
            f"there is no connection {connection_id!r}: neither the environment variable "
            f"{variable} nor {file} has it",
            remedy=f"Set {variable}, or write {connection_id} into a file of mode 600 and set "
            f"{PATH_VARIABLE} to its path; config/connections.sample.yaml shows how.",
            file=str(self._path or ""),
            path=connection_id,
            value=connection_id,
        )

    def aws_client(self, service: str, *, region: str | None, connection_id: str | None) -> Any:
        """Return a boto3 client of `service` (`s3`, `kms`) in `region`; the same one each time.

        Without a connection id the AWS SDK's own credential chain is used. `region` goes before
        the connection's `region_name`.
        """
        key = (service, region, connection_id)
        with self._lock:
            if key not in self._clients:
                endpoint = None if connection_id is None else self.endpoint(connection_id)
                name = connection_id or "the SDK's own configuration"
                self._clients[key] = _aws_client(service, region, endpoint, name=name)
            return self._clients[key]

    def _file_entries(self) -> Mapping[str, Any]:
        if self._path is None:
            return {}
        if self._entries is None:
            absent = f"Write it (see config/connections.sample.yaml), or correct {PATH_VARIABLE}."
            data = read(self._path, absent=absent, private=True).data
            if data is not None and not isinstance(data, dict):
                raise ConfigurationError(
                    f"{self._path} does not hold connections by their ids",
                    remedy="Write each id at the beginning of a line, and its keys below it.",
                    file=str(self._path),
                )
            self._entries = data or {}
        return self._entries


def _endpoint(value: Any, *, where: str) -> Endpoint:
    """Return the endpoint that `value`, an address, JSON text or mapping, describes."""
    try:
        if isinstance(value, str):
            text = value.strip()
            value = json.loads(text) if text.startswith("{") else None
            if value is None:
                return _from_address(text)
        return _from_mapping(value)
    except _MalformedError as error:
        problem = str(error)
    except ValueError:
        # The reasons given by json and urllib quote what they read, which may be a password.
        problem = "it is neither JSON nor an address"
    raise ConfigurationError(f"{where} is no connection: {problem}", remedy=_FORMAT, path=where)


class _MalformedError(ValueError):
    """Says what is wrong without showing any value."""


def _from_mapping(value: Any) -> Endpoint:
    if not isinstance(value, Mapping):
        raise _MalformedError("it is not a section of keys")
    unknown = sorted(str(key) for key in value.keys() - _KEYS)
    if unknown:
        raise _MalformedError(f"it has unknown keys: {', '.join(unknown)}")
    return Endpoint(
        kind=_kind(_text(value, "conn_type")),
        host=_text(value, "host"),
        port=_port(value.get("port")),
        user=_text(value, "login"),
        password=_text(value, "password"),
        database=_text(value, "schema"),
        extra=_extra(value.get("extra") or value.get("extra_dejson")),
    )


def _from_address(address: str) -> Endpoint:
    scheme, separator, rest = address.partition("://")
    if not separator:
        raise _MalformedError("it is neither JSON nor an address")
    # Airflow writes a host with a protocol of its own as `http://https://user:word@host`.
    protocol = ""
    if "://" in rest.partition("?")[0]:
        protocol, _, rest = rest.partition("://")
    parts = urlsplit(f"//{rest}")
    host = _host(parts)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    extra = query["__extra__"] if "__extra__" in query else _typed(query)
    return Endpoint(
        kind=_kind(scheme),
        host=f"{protocol}://{host}" if protocol and host else host,
        port=parts.port,
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        database=unquote(parts.path[1:]),
        extra=_extra(extra),
    )


def _host(parts: SplitResult) -> str:
    host = unquote(parts.hostname or "")
    if "/" not in host:
        return host
    # The directory of a socket: urllib has put its letters into lower case.
    return unquote(parts.netloc.rpartition("@")[2].partition(":")[0])


def _typed(query: Mapping[str, str]) -> dict[str, Any]:
    """Return the parameters of an address, those that are JSON (true, 5) as what they mean."""
    extra: dict[str, Any] = {}
    for key, value in query.items():
        try:
            extra[key] = json.loads(value)
        except ValueError:
            extra[key] = value
    return extra


def _kind(conn_type: str) -> str:
    if not conn_type:
        raise _MalformedError("conn_type is missing")
    return "postgres" if conn_type == "postgresql" else conn_type.replace("-", "_")


def _text(value: Mapping[str, Any], key: str) -> str:
    text = value.get(key)
    if text is None:
        return ""
    if not isinstance(text, str):
        raise _MalformedError(f"{key} is not text, put it in quotes")
    return text


def _port(value: Any) -> int | None:
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not str(value).isdecimal() or not 0 < int(value) < 65536:
        raise _MalformedError("port is not a number from 1 to 65535")
    return int(value)


def _extra(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        value = json.loads(value) if value.strip() else None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _MalformedError("extra is not a section or a JSON object")
    return value


def _aws_client(service: str, region: str | None, endpoint: Endpoint | None, *, name: str) -> Any:
    # By name: DAG parsing and `--help` must not pay for these imports, and they have no types.
    boto3: Any = import_module("boto3")
    botocore_error: Any = import_module("botocore.exceptions").BotoCoreError
    if endpoint is not None and endpoint.kind != "aws":
        raise ConfigurationError(
            f"the connection {name} is of type {endpoint.kind!r}, and {service} needs `aws`",
            remedy="Name an AWS connection, or set its conn_type to aws.",
            path=name,
            value=endpoint.kind,
        )
    extra = {} if endpoint is None else endpoint.extra
    try:
        session = boto3.Session(
            region_name=region or extra.get("region_name"), **_aws_keys(endpoint)
        )
        if extra.get("role_arn"):
            session = _in_role(session, extra)
        return session.client(service, endpoint_url=extra.get("endpoint_url"), config=_aws_config())
    except botocore_error as error:
        problem = str(error).rstrip(".")
    except _MalformedError as error:
        problem = str(error)
    except ValueError:
        # Raised for an impossible address, which it quotes; there may be a password in it.
        problem = "its endpoint_url is not an address"
    raise ConfigurationError(
        f"no {service} client can be made from {name}: {problem}",
        remedy="Name a region, write endpoint_url as http(s)://HOST[:PORT], and login and "
        "password together or not at all.",
        path=name,
    )


def _aws_keys(endpoint: Endpoint | None) -> dict[str, Any]:
    if endpoint is None:
        return {}
    words = {
        "aws_access_key_id": endpoint.user,
        "aws_secret_access_key": endpoint.password,
    }
    given = {word: value or endpoint.extra.get(word) for word, value in words.items()}
    given["aws_session_token"] = endpoint.extra.get("aws_session_token")
    keys = {word: value for word, value in given.items() if value}
    # boto3 takes a secret without its key, and fails at the first call.
    if not words.keys() <= keys.keys() and keys:
        raise _MalformedError("it has one of login and password without the other")
    return keys


def _in_role(session: Any, extra: Mapping[str, Any]) -> Any:
    """Return a session whose credentials are those of `role_arn`, renewed before they expire.

    The role is assumed at the first call, with `session`'s own credentials. Backups outlast the
    hour for which such credentials are good.
    """
    parameters = {"RoleArn": extra["role_arn"], "RoleSessionName": "neuroca-backup"}
    if extra.get("external_id"):
        parameters["ExternalId"] = extra["external_id"]
    sts = session.client("sts", endpoint_url=extra.get("endpoint_url"), config=_aws_config())
    credentials: Any = import_module("botocore.credentials")
    inner: Any = import_module("botocore.session").Session()
    inner.register_component(
        "credential_provider",
        _OnlyCredentials(
            credentials.DeferredRefreshableCredentials(
                refresh_using=credentials.create_assume_role_refresher(sts, parameters),
                method="sts-assume-role",
            )
        ),
    )
    boto3: Any = import_module("boto3")
    return boto3.Session(botocore_session=inner, region_name=session.region_name)


class _OnlyCredentials:
    """Stands in a botocore session for the chain of places where credentials are looked for."""

    def __init__(self, credentials: Any) -> None:
        self._credentials = credentials

    def load_credentials(self) -> Any:
        return self._credentials


def _aws_config() -> Any:
    config: Any = import_module("botocore.config").Config
    return config(
        retries={"mode": "standard", "total_max_attempts": AWS_ATTEMPTS},
        connect_timeout=AWS_CONNECT_SECONDS,
        read_timeout=AWS_READ_SECONDS,
        # Some S3 clones store the checksum trailers that boto3 adds by default inside objects.
        request_checksum_calculation="when_required",
    )
