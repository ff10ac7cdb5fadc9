from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from neuroca_backup.connections import FileConnections
from neuroca_backup.errors import ConfigurationError
from neuroca_backup.model.endpoint import Connections, Endpoint
from neuroca_backup.settings import load

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "config" / "connections.sample.yaml"
AWS = {"conn_type": "aws", "login": "AKIAHERE", "password": "hunter2"}


def private(folder: Path, data: Any) -> Path:
    path = folder / "connections.yaml"
    path.write_text(data if isinstance(data, str) else yaml.safe_dump(data))
    path.chmod(0o600)
    return path


def from_variable(value: str) -> Endpoint:
    return FileConnections(environ={"AIRFLOW_CONN_NCA": value}).endpoint("nca")


def aws(folder: Path, extra: dict[str, Any], **fields: Any) -> Connections:
    return FileConnections(private(folder, {"cloud": AWS | {"extra": extra} | fields}), environ={})


ADDRESSES = {
    "postgres://nca:p%40ss%2Fw%3Ard@db.example.org:5433/neuroca?sslmode=require": Endpoint(
        "postgres", "db.example.org", 5433, "nca", "p@ss/w:rd", "neuroca", {"sslmode": "require"}
    ),
    "postgresql://db/": Endpoint("postgres", "db"),
    "google-cloud-platform://?__extra__=%7B%22a%22%3A+%7B%22b%22%3A+1%7D%7D": Endpoint(
        "google_cloud_platform", extra={"a": {"b": 1}}
    ),
    "redis://:p%25w@[::1]:6379/1?ssl=true&timeout=5&empty=": Endpoint(
        "redis", "::1", 6379, "", "p%w", "1", {"ssl": True, "timeout": 5, "empty": ""}
    ),
    "postgres://nca@%2Fvar%2Frun%2FMine:5432/x": Endpoint(
        "postgres", "/var/run/Mine", 5432, "nca", database="x"
    ),
    "http://https://nca:pw@vectors.example.org:8080/": Endpoint(
        "http", "https://vectors.example.org", 8080, "nca", "pw"
    ),
    "aws://AKIA:s%2Fe%2Bc@/?endpoint_url=http%3A%2F%2F127.0.0.1%3A5000%2F": Endpoint(
        "aws", user="AKIA", password="s/e+c", extra={"endpoint_url": "http://127.0.0.1:5000/"}
    ),
}


@pytest.mark.parametrize(("address", "expected"), ADDRESSES.items(), ids=ADDRESSES.keys())
def test_an_address_is_read_as_airflow_reads_it(address: str, expected: Endpoint) -> None:
    assert from_variable(address) == expected


@pytest.mark.parametrize("address", ADDRESSES)
def test_airflow_itself_agrees(address: str) -> None:
    connection = pytest.importorskip("airflow.models.connection").Connection(uri=address)
    ours = from_variable(address)
    assert (ours.kind, ours.host, ours.port, ours.user, ours.password, ours.database) == (
        connection.conn_type,
        connection.host or "",
        connection.port,
        connection.login or "",
        connection.password or "",
        connection.schema or "",
    )
    assert ours.extra == connection.extra_dejson


@pytest.mark.parametrize("extra", [{"a": [1]}, '{"a": [1]}'], ids=["object", "text"])
@pytest.mark.parametrize("port", [27017, "27017"])
def test_json_is_read_with_its_extra_as_an_object_or_as_text(extra: Any, port: Any) -> None:
    value = {"conn_type": "mongo", "host": "db", "login": "nca", "password": "p%40", "port": port}
    endpoint = from_variable(json.dumps(value | {"schema": "episodic", "extra": extra}))
    assert endpoint == Endpoint("mongo", "db", 27017, "nca", "p%40", "episodic", {"a": [1]})


def test_the_file_takes_addresses_and_sections(tmp_path: Path) -> None:
    path = private(
        tmp_path,
        {
            "one": "redis://:pw@cache:6379/0",
            "two": {"conn_type": "mongo", "host": "db", "extra": {"tls": True}},
        },
    )
    found = FileConnections(environ={"NEUROCA_BACKUP_CONNECTIONS": str(path)})
    assert found.endpoint("one") == Endpoint("redis", "cache", 6379, "", "pw", "0")
    assert found.endpoint("two") == Endpoint("mongo", "db", extra={"tls": True})


def test_the_variable_goes_before_the_file(tmp_path: Path) -> None:
    path = private(tmp_path, {"nca": "postgres://file/"})
    found = FileConnections(path, environ={"AIRFLOW_CONN_NCA": "postgres://variable/"})
    assert found.endpoint("nca").host == "variable"


def test_the_file_is_not_opened_while_variables_have_it_all(tmp_path: Path) -> None:
    found = FileConnections(tmp_path / "none", environ={"AIRFLOW_CONN_NCA": "postgres://db/"})
    assert found.endpoint("nca").host == "db"
    with pytest.raises(ConfigurationError, match="does not exist"):
        found.endpoint("other")


@pytest.mark.parametrize("with_file", [True, False])
def test_an_unknown_id_names_both_places(tmp_path: Path, *, with_file: bool) -> None:
    path = private(tmp_path, {"other": "postgres://db/"}) if with_file else None
    with pytest.raises(ConfigurationError) as caught:
        FileConnections(path, environ={}).endpoint("nca")
    assert "AIRFLOW_CONN_NCA" in str(caught.value)
    assert "NEUROCA_BACKUP_CONNECTIONS" in str(caught.value)
    assert not with_file or str(path) in str(caught.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o660])
def test_a_file_that_others_may_open_is_refused(tmp_path: Path, mode: int) -> None:
    path = private(tmp_path, {"nca": "postgres://x:hunter2@db/"})
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match=f"{mode:04o}") as caught:
        FileConnections(path, environ={}).endpoint("nca")
    assert caught.value.remedy == f"Run `chmod 600 {path}`."


MALFORMED = {
    "no scheme": "hunter2",
    "broken JSON": '{"conn_type": "postgres", "password": "hunter2"',
    "a port that is no number": "postgres://x:hunter2@db:port/",
    "a port out of range": "postgres://x:hunter2@db:99999/",
    "JSON without a type": '{"password": "hunter2"}',
    "an unknown key": '{"conn_type": "aws", "password": "hunter2", "pasword": "x"}',
    "a password that is a number": {"conn_type": "aws", "login": "hunter2", "password": 83},
    "a port of zero": {"conn_type": "aws", "port": 0, "password": "hunter2"},
    "an extra that is a list": {"conn_type": "aws", "extra": ["hunter2"]},
    "an extra that is not JSON": {"conn_type": "aws", "extra": "hunter2"},
    "a list": ["postgres://x:hunter2@db/"],
    "a broken bracket": "postgres://x:hunter2@[::1/",
}


@pytest.mark.parametrize("value", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_is_no_connection_is_refused_without_showing_it(tmp_path: Path, value: Any) -> None:
    with pytest.raises(ConfigurationError, match="is no connection") as caught:
        FileConnections(private(tmp_path, {"nca": value}), environ={}).endpoint("nca")
    shown = f"{caught.value}{caught.value.facts}{caught.value.__context__}{caught.value.__cause__}"
    assert "hunter2" not in shown


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nca: 'a'\nnca: 'b'\n", "twice"),
        ('nca: {password: "hunter2\n', "is not YAML"),
        ("- hunter2\n", "does not hold connections by their ids"),
    ],
)
def test_a_file_that_cannot_be_read_as_connections_is_refused(
    tmp_path: Path, text: str, words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        FileConnections(private(tmp_path, text), environ={}).endpoint("nca")
    assert "hunter2" not in str(caught.value)


def test_no_secret_shows_in_the_repr(tmp_path: Path) -> None:
    found = aws(tmp_path, {"aws_session_token": "hunter3"})
    assert "hunter" not in repr(found) + repr(found.endpoint("cloud"))


# The sample file.


def test_the_sample_is_valid_and_has_what_the_shipped_settings_name(tmp_path: Path) -> None:
    found = FileConnections(private(tmp_path, SAMPLE.read_text()), environ={})
    sources = load(ROOT / "config" / "backup.yaml").sources.values()
    kinds = {
        "postgresql": "postgres",
        "mongodb": "mongo",
        "redis_rdb": "redis",
        "milvus": "milvus",
        "airflow_metadata": "postgres",
    }
    named = [source for source in sources if source.connection is not None]

    assert found.endpoint("neuroca_catalog").kind == "postgres"
    assert len(named) == 5
    for source in named:
        assert found.endpoint(str(source.connection)).kind == kinds[source.engine]
    for connection_id in ("neuroca_aws", "neuroca_aws_dr"):
        assert found.endpoint(connection_id).kind == "aws"


# AWS clients.


def test_a_client_has_the_connections_keys_address_and_our_limits(tmp_path: Path) -> None:
    extra = {"endpoint_url": "http://127.0.0.1:9", "aws_session_token": "token"}
    client = aws(tmp_path, extra).aws_client("s3", region="eu-west-1", connection_id="cloud")

    assert client.meta.endpoint_url == "http://127.0.0.1:9"
    assert client.meta.region_name == "eu-west-1"
    config = client.meta.config
    assert config.retries == {"mode": "standard", "total_max_attempts": 5}
    assert (config.connect_timeout, config.read_timeout) == (5, 60)
    assert config.request_checksum_calculation == "when_required"
    keys = client._request_signer._credentials
    assert (keys.access_key, keys.secret_key, keys.token) == ("AKIAHERE", "hunter2", "token")


def test_keys_may_stand_in_the_extra(tmp_path: Path) -> None:
    extra = {"aws_access_key_id": "AKIATHERE", "aws_secret_access_key": "hunter3"}
    found = aws(tmp_path, extra, login=None, password=None)
    keys = found.aws_client("kms", region="eu-west-1", connection_id="cloud")
    assert keys._request_signer._credentials.secret_key == "hunter3"


def test_the_region_asked_for_goes_before_that_of_the_connection(tmp_path: Path) -> None:
    found = aws(tmp_path, {"region_name": "us-east-2"})
    assert (
        found.aws_client("kms", region=None, connection_id="cloud").meta.region_name == "us-east-2"
    )
    client = found.aws_client("kms", region="eu-west-3", connection_id="cloud")
    assert client.meta.region_name == "eu-west-3"


def test_clients_are_made_once_even_by_several_threads(tmp_path: Path) -> None:
    found = aws(tmp_path, {})
    clients: list[Any] = []

    def ask() -> None:
        clients.append(found.aws_client("s3", region="eu-west-1", connection_id="cloud"))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(clients) == 8
    assert len(set(map(id, clients))) == 1
    other = found.aws_client("s3", region="eu-west-2", connection_id="cloud")
    assert other is not clients[0]


def test_without_a_connection_the_sdks_own_chain_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIACHAIN")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "chain")
    client = FileConnections(environ={}).aws_client("s3", region="eu-west-1", connection_id=None)
    assert client._request_signer._credentials.access_key == "AKIACHAIN"


def test_a_client_without_any_region_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(ConfigurationError, match="no kms client can be made from cloud"):
        aws(tmp_path, {}).aws_client("kms", region=None, connection_id="cloud")


@pytest.mark.parametrize(
    ("extra", "fields"),
    [
        ({"endpoint_url": "x:hunter2@nowhere"}, {}),
        ({}, {"login": None}),
        ({}, {"conn_type": "postgres"}),
    ],
    ids=["address", "half of the keys", "another type"],
)
def test_an_impossible_client_is_refused_without_showing_secrets(
    tmp_path: Path, extra: dict[str, Any], fields: dict[str, Any]
) -> None:
    with pytest.raises(ConfigurationError, match="cloud") as caught:
        aws(tmp_path, extra, **fields).aws_client("s3", region="eu-west-1", connection_id="cloud")
    assert "hunter2" not in str(caught.value) + repr(caught.value.facts)


@pytest.fixture(scope="module")
def emulator() -> Iterator[str]:
    """A local stand-in for AWS, and its address."""
    from moto.server import ThreadedMotoServer  # noqa: PLC0415 - slow, and two tests need it

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def test_a_role_is_assumed_with_the_connections_keys(tmp_path: Path, emulator: str) -> None:
    role = "arn:aws:iam::123456789012:role/neuroca-backup"
    extra = {"role_arn": role, "external_id": "nca", "endpoint_url": emulator}
    client = aws(tmp_path, extra).aws_client("sts", region="us-west-2", connection_id="cloud")

    identity = client.get_caller_identity()
    assert identity["Arn"] == "arn:aws:sts::123456789012:assumed-role/neuroca-backup/neuroca-backup"
    keys = client._request_signer._credentials
    assert keys.access_key.startswith("ASIA")
    assert keys.get_frozen_credentials().token


def test_a_client_reaches_its_address(tmp_path: Path, emulator: str) -> None:
    found = aws(tmp_path, {"endpoint_url": emulator})
    client = found.aws_client("s3", region="us-east-1", connection_id="cloud")
    client.create_bucket(Bucket="nca-here")
    assert "nca-here" in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]


def test_importing_the_connections_brings_in_no_cloud_library() -> None:
    program = "import sys, neuroca_backup.connections; print(*sorted(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(ROOT / "plugins")},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert {"boto3", "botocore", "airflow"}.isdisjoint(loaded)
