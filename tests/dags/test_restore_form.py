"""The restore form: what it takes, what it refuses, and which server it means."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk.exceptions import ParamValidationError

from neuroca_backup.errors import (
    BackupError,
    ConfigurationError,
    NotFoundError,
    TargetRefusedError,
)
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.operators.restore_request import RestoreRequest
from neuroca_backup.settings import Settings, load
from support.registering import register

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airflow.sdk import DAG

SET = "20261123T020000Z-1f0c9a3e"
BACKUP = f"{SET}-postgres"
FOR: Any = {"source": "postgres", "engine": "postgresql"}


class Known:
    """Connections by id."""

    def __init__(self, **endpoints: Endpoint) -> None:
        self._endpoints = endpoints

    def endpoint(self, connection_id: str) -> Endpoint:
        return self._endpoints[connection_id]

    def aws_client(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError(args, kwargs)


@pytest.fixture
def settings(configure: Callable[..., Path]) -> Settings:
    return load(configure())


def test_the_defaults_of_the_form_are_a_rehearsal_in_a_sandbox(
    settings: Settings, parsed: Callable[[], dict[str, DAG]]
) -> None:
    params = parsed()["restore"].params.dump()

    request = RestoreRequest.parse(params, settings)

    assert request == RestoreRequest(source="postgres")
    assert request.target == "sandbox"
    assert request.prefer is None


def test_the_form_has_the_fields_of_the_request_each_with_a_title_and_a_description(
    settings: Settings, parsed: Callable[[], dict[str, DAG]]
) -> None:
    params = parsed()["restore"].params

    assert set(params) == set(RestoreRequest.__dataclass_fields__)
    for name in params:
        param = params.get_param(name)
        assert param.description
        assert param.schema["title"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("source", "mongodb"),
        ("target", "production"),
        ("prefer_store", "tertiary"),
        ("before", "yesterday"),
        ("before", "2026-11-23T02:00:00"),
        ("until", "noon"),
        ("only", "neuroca"),
        ("only", [7]),
        ("set_id", 7),
        ("save_first", "yes"),
        ("keep_sandbox", "yes"),
        ("backup_id", 7),
    ],
)
def test_airflow_itself_refuses_a_value_that_is_no_choice(
    settings: Settings, parsed: Callable[[], dict[str, DAG]], field: str, value: object
) -> None:
    params = parsed()["restore"].params

    with pytest.raises(ParamValidationError, match=field):
        params[field] = value


def test_a_filled_form_is_read_with_empty_text_as_nothing(settings: Settings) -> None:
    request = RestoreRequest.parse(
        {"source": "postgres", "before": "2026-11-23T02:00:00Z", "backup_id": "", "confirm": ""},
        settings,
    )

    assert request.before == datetime(2026, 11, 23, 2, tzinfo=UTC)
    assert request.backup_id is None
    assert request.confirm is None


def test_a_moment_and_parts_are_read_with_empty_lines_as_nothing(settings: Settings) -> None:
    request = RestoreRequest.parse(
        {
            "source": "postgres",
            "until": "2026-11-23T02:00:00+02:00",
            "only": ["neuroca ", "", "neuroca_memory"],
        },
        settings,
    )

    assert request.until == datetime(2026, 11, 23, tzinfo=UTC)
    assert request.only == ("neuroca", "neuroca_memory")
    assert request.save_first


@pytest.mark.parametrize(
    ("form", "kind", "words"),
    [
        ({"sauce": 1}, ConfigurationError, "'sauce'"),
        ({"source": "redis"}, ConfigurationError, "'redis' is not a choice"),
        (
            {"backup_id": BACKUP, "before": "2026-11-23T02:00:00Z"},
            ConfigurationError,
            "Both backup_id and before",
        ),
        ({"before": "2026-11-23T02:00:00"}, ConfigurationError, "has no time zone"),
        ({"backup_id": BACKUP.replace("postgres", "redis")}, ConfigurationError, "not a backup of"),
        ({"until": "2026-11-23T02:00:00"}, ConfigurationError, "until: .* has no time zone"),
        (
            {"until": "2026-11-23T02:00:00Z", "before": "2026-11-23T02:00:00Z"},
            ConfigurationError,
            "Both before and until",
        ),
        ({"set_id": SET, "backup_id": BACKUP}, ConfigurationError, "Both set_id and backup_id"),
        ({"set_id": SET, "only": ["neuroca"]}, ConfigurationError, "Both set_id and only"),
        (
            {"set_id": SET, "until": "2026-11-23T02:00:00Z"},
            ConfigurationError,
            "Both set_id and until",
        ),
        (
            {"set_id": SET, "target": "connection", "target_connection": "elsewhere"},
            ConfigurationError,
            "it has several sources",
        ),
        (
            {"set_id": SET, "target": "directory", "target_directory": "/restore"},
            ConfigurationError,
            "it has several sources",
        ),
        ({"target": "directory"}, ConfigurationError, "target_directory"),
        ({"target_directory": "/restore"}, ConfigurationError, "target_directory"),
        (
            {"set_id": SET, "target": "in_place", "confirm": "postgres"},
            TargetRefusedError,
            f"set confirm to '{SET}'",
        ),
        ({"target": "connection"}, ConfigurationError, "target_connection"),
        ({"target_connection": "elsewhere"}, ConfigurationError, "target_connection"),
        ({"target": "in_place"}, TargetRefusedError, "set confirm to 'postgres'"),
        ({"target": "in_place", "confirm": "Postgres"}, TargetRefusedError, "set confirm"),
    ],
)
def test_a_form_that_contradicts_itself_is_refused_with_one_clear_error(
    settings: Settings, form: dict[str, Any], kind: type[BackupError], words: str
) -> None:
    with pytest.raises(kind, match=words):
        RestoreRequest.parse({"source": "postgres", **form}, settings)


PRODUCTION = Endpoint(kind="postgres", host="db.nca.example")


@pytest.mark.parametrize("host", ["db.nca.example", "DB.nca.example."])
@pytest.mark.parametrize("port", [None, 5432])
def test_another_connection_to_a_server_that_is_backed_up_is_refused(
    settings: Settings, tmp_path: Path, host: str, port: int | None
) -> None:
    other = Endpoint(kind="postgres", host=host, port=port, user="someone_else")
    request = RestoreRequest("postgres", target="connection", target_connection="other")

    with pytest.raises(TargetRefusedError, match="is the server of the source postgres"):
        request.resolve(settings, Known(neuroca_postgres=PRODUCTION, other=other), tmp_path, **FOR)


def test_another_port_or_host_is_a_target_that_may_not_be_replaced(
    settings: Settings, tmp_path: Path
) -> None:
    other = Endpoint(kind="postgres", host="db.nca.example", port=6000)
    request = RestoreRequest("postgres", target="connection", target_connection="other")

    target = request.resolve(
        settings, Known(neuroca_postgres=PRODUCTION, other=other), tmp_path, **FOR
    )

    assert target.endpoint == other
    assert target.replace is False


def test_only_a_confirmed_in_place_restore_may_replace_the_source(
    settings: Settings, tmp_path: Path
) -> None:
    request = RestoreRequest("postgres", target="in_place", confirm="postgres")

    target = request.resolve(settings, Known(neuroca_postgres=PRODUCTION), tmp_path, **FOR)

    assert target.replace is True
    assert target.endpoint.label == "db.nca.example:5432"


def test_a_source_that_backup_yaml_has_lost_has_no_server_to_restore_in_place(
    settings: Settings, tmp_path: Path
) -> None:
    request = RestoreRequest("postgres", target="in_place", set_id=SET, confirm=SET)

    with pytest.raises(ConfigurationError, match="'redis' is not a choice"):
        request.resolve(settings, Known(), tmp_path, source="redis", engine="redis_rdb")


def test_a_sandbox_at_a_production_address_is_refused(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from neuroca_backup import sandbox  # noqa: PLC0415 - the name that is replaced

    here = Endpoint(kind="postgres", host="127.0.0.1", port=5432)
    monkeypatch.setattr(sandbox, "endpoints", {tmp_path: {"postgres_twin": here}}.__getitem__)
    production = Endpoint(kind="postgres", host="localhost")

    with pytest.raises(TargetRefusedError):
        RestoreRequest("postgres").resolve(
            settings, Known(neuroca_postgres=production), tmp_path, **FOR
        )


def test_a_sandbox_that_does_not_run_is_missed_with_its_remedy(
    settings: Settings, tmp_path: Path
) -> None:
    with pytest.raises(NotFoundError, match="Clear the task `sandbox`"):
        RestoreRequest("postgres").resolve(
            settings, Known(neuroca_postgres=PRODUCTION), tmp_path, **FOR
        )


def test_files_go_to_a_directory_and_a_part_is_known_by_the_source_that_it_is_of(
    tmp_path: Path, configure: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    register(monkeypatch)
    made = load(
        configure(
            sources="  sources:\n"
            "    models: {component: model_weights, engine: pieces, options: {root: /srv}}\n"
        )
    )
    place = tmp_path / "restored"

    def parsed(**form: str) -> RestoreRequest:
        return RestoreRequest.parse(form, made)

    part: Any = {"source": "models__phi", "engine": "pieces"}
    request = parsed(
        source="models__phi", target="directory", target_directory=str(place), prefer_store="auto"
    )
    found = request.resolve(made, Known(), tmp_path, **part)
    in_place = parsed(source="models__phi", target="in_place", confirm="models__phi")

    assert request.place == str(place)
    assert (found.endpoint.directory, found.replace) == (place, False)
    own = in_place.resolve(made, Known(), tmp_path, **part)
    assert (own.endpoint.kind, own.endpoint.directory, own.replace) == ("files", None, True)
    with pytest.raises(TargetRefusedError, match="set confirm to 'models__phi'"):
        parsed(source="models__phi", target="in_place", confirm="models")
    with pytest.raises(ConfigurationError, match="not an absolute path"):
        parsed(source="models__phi", target="directory", target_directory="here").resolve(
            made, Known(), tmp_path, **part
        )
    with pytest.raises(ConfigurationError, match="'model__phi' is not a choice"):
        parsed(source="model__phi")
