"""Where a restore may go, and how a source is reached."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from neuroca_backup import engines, sandbox
from neuroca_backup.connections import FileConnections
from neuroca_backup.errors import ConfigurationError, TargetRefusedError
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.identity import Classification
from neuroca_backup.services import targets
from neuroca_backup.settings import SourceSettings

NOBODY = FileConnections(environ={})


def source(**words: Any) -> SourceSettings:
    return SourceSettings.model_validate(
        {"component": "configuration", "engine": "filetree", **words}
    )


def test_files_are_on_this_machine_and_need_no_connection() -> None:
    found = targets.own("configuration", source(), connections=NOBODY)
    assert found == Endpoint.this_machine()
    assert found.label == "this machine"
    assert found.directory is None


@pytest.mark.parametrize(
    "words",
    [
        pytest.param({"connection": "somewhere"}, id="files with a connection"),
        pytest.param({"engine": "postgresql"}, id="a server without one"),
    ],
)
def test_a_connection_too_many_or_too_few_is_refused_by_its_name(words: Mapping[str, str]) -> None:
    with pytest.raises(ConfigurationError, match=r"The source odd has .*connection") as caught:
        targets.own("odd", source(**words), connections=NOBODY)
    assert caught.value.facts["path"] == "connection"


def test_a_directory_is_a_target_for_files_alone() -> None:
    place = Path("/restore/configuration")
    assert targets.directory(place, "filetree").directory == place
    with pytest.raises(ConfigurationError, match="restores to a server"):
        targets.directory(place, "postgresql")
    with pytest.raises(ConfigurationError, match="restores files of this machine"):
        targets.require_server("filetree", connection="twin")
    targets.require_server("postgresql", connection="twin")


@pytest.mark.parametrize("path", ["relative", "/restore/../etc"])
def test_a_target_directory_has_to_be_an_absolute_path(path: str) -> None:
    with pytest.raises(ConfigurationError, match="absolute"):
        targets.directory(Path(path), "filetree")


def test_the_root_directory_is_in_place_and_refused_as_a_target() -> None:
    with pytest.raises(TargetRefusedError, match="original place"):
        targets.directory(Path("/"), "filetree")


def test_the_throwaway_target_of_files_is_a_private_directory_without_a_server(
    tmp_path: Path,
) -> None:
    kind = targets.sandbox_kind("filetree")
    assert kind == engines.DIRECTORY
    with sandbox.running(kind, tmp_path / "sandbox") as endpoint:
        directory = endpoint.directory
        assert directory is not None
        assert not directory.exists()
        assert directory.parent.stat().st_mode & 0o077 == 0
        assert sandbox.status(tmp_path / "sandbox")[kind].running
        assert sandbox.endpoints(tmp_path / "sandbox") == {kind: endpoint}
    assert not (tmp_path / "sandbox").exists()


def test_configuration_is_restricted_and_the_rest_confidential_unless_said_otherwise() -> None:
    assert source().classification is Classification.RESTRICTED
    assert source(component="logs").classification is Classification.CONFIDENTIAL
    assert source(classification="internal").classification is Classification.INTERNAL
