"""docker-compose.yaml against the Compose specification and the promises of its own comments."""

from __future__ import annotations

import json
import re
import stat
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow.configuration import conf
from check_jsonschema.builtin_schemas import get_builtin_schema
from jsonschema import Draft202012Validator
from moto.server import ThreadedMotoServer

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "config" / "compose"
TEXT = (ROOT / "docker-compose.yaml").read_text()

# ${NAME}, ${NAME:-default}, ${NAME:?message}; $$ is a literal dollar.
INTERPOLATION = re.compile(r"(?<!\$)\$(?:\{(\w+)(:?[-?][^}]*)?\}|(\w+))")
SECRET_NAME = re.compile(r"PASSWORD|SECRET|TOKEN|_KEY|SQL_ALCHEMY_CONN|BROKER_URL|RESULT_BACKEND")
URL_WITH_PASSWORD = re.compile(r"\w+://[^/\s:@]*:[^/\s@{$]+@")
# A tag that names one release: PostgreSQL's have two numbers, MinIO's a time, all others three.
POSTGRES_TAG = re.compile(r"\d+\.\d+-\w+")
EXACT_TAG = re.compile(r"v?\d+\.\d+\.\d+(-\w+)?|RELEASE\.[\dTZ-]{20}")


@cache
def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(TEXT)
    return document


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = compose()["services"]
    return found


def is_one_shot(service: dict[str, Any]) -> bool:
    return str(service["restart"]).startswith("on-failure")


def interpolations() -> dict[str, str]:
    code = "\n".join(line for line in TEXT.splitlines() if not line.lstrip().startswith("#"))
    return {m[1] or m[3]: m[2] or "" for m in INTERPOLATION.finditer(code)}


def secret_sources(service: dict[str, Any]) -> dict[str, str]:
    """Return a service's secrets by the name of the file below /run/secrets."""
    return {
        secret if isinstance(secret, str) else secret["target"]: secret
        if isinstance(secret, str)
        else secret["source"]
        for secret in service.get("secrets", [])
    }


EACH_SERVICE = pytest.mark.parametrize("name", sorted(services()))


def test_the_file_follows_the_compose_specification() -> None:
    validator = Draft202012Validator(get_builtin_schema("vendor.compose-spec"))

    problems = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(compose())]

    assert problems == []


def test_the_specification_used_refuses_a_misspelt_word() -> None:
    validator = Draft202012Validator(get_builtin_schema("vendor.compose-spec"))
    misspelt = {"services": {"worker": {"image": "x", "volumens": []}}}

    assert not validator.is_valid(misspelt)


def test_every_variable_is_required_with_a_message_or_has_a_default() -> None:
    loose = [
        name for name, rule in interpolations().items() if not re.fullmatch(r":-.+|:\?.+", rule)
    ]

    assert interpolations()
    assert loose == []


def test_the_sample_environment_documents_exactly_the_variables_in_use() -> None:
    lines = (FOLDER / "env.sample").read_text().splitlines()
    assigned = {line.split("=", 1)[0]: index for index, line in enumerate(lines) if "=" in line}
    documented = {name for name in assigned if re.fullmatch(r"[A-Z_]+", name)}

    assert documented - {"COMPOSE_PROFILES"} == set(interpolations())
    for name in documented:
        before = lines[assigned[name] - 1]
        assert before.startswith("#") or "=" in before, f"{name} has no comment above it"


def test_the_sample_environment_shows_the_defaults_that_hold_without_it() -> None:
    sample = dict(
        line.split("=", 1)
        for line in (FOLDER / "env.sample").read_text().splitlines()
        if re.match(r"[A-Z_]+=", line)
    )
    defaults = {n: r[2:] for n, r in interpolations().items() if r.startswith(":-")}

    assert {name: sample[name] for name in defaults} == defaults


@EACH_SERVICE
def test_depends_on_names_services_that_run_under_the_same_profiles(name: str) -> None:
    profiles = set(services()[name].get("profiles", []))

    for needed, how in services()[name].get("depends_on", {}).items():
        assert needed in services()
        # An optional service may need an unconditional one; never the other way round.
        assert set(services()[needed].get("profiles", [])) <= profiles
        expected = (
            "service_completed_successfully"
            if is_one_shot(services()[needed])
            else "service_healthy"
        )
        assert how["condition"] == expected


@EACH_SERVICE
def test_a_service_that_stays_up_has_a_health_check_and_restarts(name: str) -> None:
    service = services()[name]

    if is_one_shot(service):
        assert "healthcheck" not in service
    else:
        assert service["restart"] == "unless-stopped"
        assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}
        assert service["deploy"]["resources"]["limits"]["memory"]


@EACH_SERVICE
def test_mounts_are_files_of_this_repository_read_only_or_declared_volumes(name: str) -> None:
    for mount in services()[name].get("volumes", []):
        source = mount.split(":")[0]
        if source.startswith("."):
            assert (ROOT / source).exists(), f"{source} is not in the repository"
            assert mount.endswith(":ro"), f"{source} can be written to from the container"
        else:
            assert source in compose()["volumes"]


@EACH_SERVICE
def test_networks_are_declared(name: str) -> None:
    assert services()[name]["networks"]
    assert set(services()[name]["networks"]) <= set(compose()["networks"])


@EACH_SERVICE
def test_ports_are_published_on_the_loopback_address_only(name: str) -> None:
    for port in services()[name].get("ports", []):
        assert port.startswith("127.0.0.1:")


@EACH_SERVICE
def test_the_image_has_an_exact_tag(name: str) -> None:
    image, _, tag = services()[name]["image"].rpartition(":")

    exact = POSTGRES_TAG if image == "postgres" else EXACT_TAG
    assert exact.fullmatch(tag), f"{image}:{tag} can mean another image tomorrow"


def test_the_image_is_built_on_the_airflow_release_that_is_pinned() -> None:
    base = re.search(
        r"^FROM apache/airflow:slim-([\d.]+)-python3\.11$",
        (ROOT / "Dockerfile").read_text(),
        re.MULTILINE,
    )
    pins = (FOLDER / "requirements.txt").read_text().splitlines()

    assert base is not None
    assert f"apache-airflow=={base[1]}" in pins
    assert services()["worker"]["image"].endswith(f":{base[1]}")


@EACH_SERVICE
def test_secrets_reach_a_service_as_files_only(name: str) -> None:
    for variable, value in services()[name].get("environment", {}).items():
        if SECRET_NAME.search(variable) and not variable.endswith("ACCESS_KEY_ID"):
            assert re.fullmatch(r"(cat )?/run/secrets/\w+", value), f"{variable} is a literal"
            assert variable.endswith("_CMD" if value.startswith("cat ") else "_FILE")


def test_no_address_carries_a_password() -> None:
    assert URL_WITH_PASSWORD.search("redis://:hunter2@broker") is not None
    assert URL_WITH_PASSWORD.findall(TEXT) == []


@EACH_SERVICE
def test_every_secret_file_a_service_reads_is_mounted_and_no_other(name: str) -> None:
    service = services()[name]
    mounted = secret_sources(service)
    words = json.dumps(service)
    for mount in service.get("volumes", []):
        source = ROOT / mount.split(":")[0]
        if source.parent == FOLDER:
            words += source.read_text()
    if name == "init":
        words += (FOLDER / "initialise.sh").read_text()
    read = set(re.findall(r"/run/secrets/([\w.]+)", words))

    assert read == set(mounted)
    assert set(mounted.values()) <= set(compose()["secrets"])


def test_every_airflow_variable_is_an_option_that_airflow_knows() -> None:
    known = {
        f"AIRFLOW__{section}__{option}".upper()
        for section, body in conf.configuration_description.items()
        for option in body["options"]
    }
    # The Celery provider is in the image only; these names are from its reference page.
    celery = {"BROKER_URL", "RESULT_BACKEND", "WORKER_CONCURRENCY", "WORKER_PREFETCH_MULTIPLIER"}
    known |= {f"AIRFLOW__CELERY__{option}" for option in celery}
    known.add("AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT")
    used = {
        variable.removesuffix("_CMD")
        for service in services().values()
        for variable in service.get("environment", {})
        if variable.startswith("AIRFLOW__")
    }

    assert len(used) > 10
    assert used - known == set()


def test_every_pin_of_the_image_agrees_with_what_the_tests_ran_on() -> None:
    tested = dict(
        line.split("==") for line in (ROOT / "requirements-dev.txt").read_text().splitlines()
    )
    image = dict(
        line.split("==") for line in (FOLDER / "requirements.txt").read_text().splitlines()
    )
    common = tested.keys() & image.keys()

    assert {"apache-airflow", "boto3", "zstandard", "tink", "psycopg"} <= common
    assert {n: image[n] for n in common} == {n: tested[n] for n in common}


def make_secrets(directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, FOLDER / "make_secrets.py", directory],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_script_makes_every_secret_file_in_a_private_directory(tmp_path: Path) -> None:
    directory = tmp_path / "secrets"

    assert make_secrets(directory).returncode == 0

    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    made = {path.name: path for path in directory.iterdir()}
    assert set(made) == set(compose()["secrets"])
    for path in made.values():
        assert path.read_text().strip()
        assert stat.S_IMODE(path.stat().st_mode) == 0o444
    broker_password = made["broker_password"].read_text()
    assert broker_password in made["airflow_broker_url"].read_text()
    connections = json.loads(made["airflow_connections"].read_text())
    sample = yaml.safe_load((ROOT / "config" / "connections.sample.yaml").read_text())
    assert set(sample) <= set(connections)
    hosts = {c["host"] for c in connections.values() if "host" in c}
    assert hosts <= set(services())
    assert connections["neuroca_redis"]["password"] == made["redis_password"].read_text()


def test_running_the_script_again_changes_no_secret(tmp_path: Path) -> None:
    directory = tmp_path / "secrets"
    assert make_secrets(directory).returncode == 0
    (directory / "airflow_jwt_secret").unlink()
    before = {path.name: path.read_bytes() for path in directory.iterdir()}

    assert make_secrets(directory).returncode == 0

    after = {path.name: path.read_bytes() for path in directory.iterdir()}
    assert after.pop("airflow_jwt_secret")
    assert after == before


def test_the_script_refuses_a_directory_that_others_can_enter(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)

    result = make_secrets(tmp_path)

    assert result.returncode == 1
    assert f"chmod 700 {tmp_path}" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_emulator_script_prepares_both_regions_and_can_be_repeated() -> None:
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        runs = [
            subprocess.run(
                [sys.executable, FOLDER / "emulator.py"],
                env={"EMULATOR_ENDPOINT": f"http://{host}:{port}"},
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            for _ in range(2)
        ]
    finally:
        server.stop()

    assert runs[0] == runs[1]
    assert re.fullmatch(
        r"us-west-2: arn:aws:kms:us-west-2:\S+\neu-central-1: arn:aws:kms:eu-central-1:\S+\n",
        runs[0],
    )
