"""Stopping and starting services: real processes, and doubles of systemctl and kubectl."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from neuroca_backup.errors import PermanentError, ToolMissingError, TransientError
from neuroca_backup.services import quiesce
from neuroca_backup.services.quiesce import RUNNING, STOPPED, Quiesce
from neuroca_backup.settings.affected import AffectedSettings

# Both keep the state in a file beside themselves, and every call in another.
SYSTEMCTL = """#!/bin/sh
cd "$(dirname "$0")"; echo "systemctl $*" >> calls
case "$1" in
  show) load=loaded; [ "$3" = neuroca-api.service ] || load=not-found
        echo "LoadState=$load"; echo "ActiveState=$(cat unit)" ;;
  stop) [ -e stuck ] || echo inactive > unit ;;
  start) echo active > unit ;;
esac
"""
KUBECTL = """#!/bin/sh
cd "$(dirname "$0")"; echo "kubectl $*" >> calls
case "$1" in
  get) [ -e refused ] && { echo "Error from server (Forbidden)" >&2; exit 1; }
       printf '%s %s' "$(cat wanted)" "$(cat present)" ;;
  scale) for word; do case "$word" in --replicas=*) n="${word#--replicas=}" ;; esac; done
       echo "$n" > wanted; if [ "$n" = 0 ]; then : > present; else echo "$n" > present; fi ;;
esac
"""
# A daemon that outlives the command which starts it, known by its process id.
DAEMON = """#!/bin/sh
cd "$(dirname "$0")"
alive() { [ -e pid ] && kill -0 "$(cat pid)" 2>/dev/null; }
case "$1" in
  status) alive && exit 0; exit 3 ;;
  start) alive || { sleep 1000 >/dev/null 2>&1 & echo $! > pid; } ;;
  stop) kill "$(cat pid)"; rm pid ;;
esac
"""
UNIT = AffectedSettings.model_validate({"systemd": "neuroca-api.service", "timeout": "1m"})
WORKLOAD = AffectedSettings.model_validate(
    {"kubernetes": "deployment/neuroca-worker", "namespace": "neuroca"}
)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quiesce, "_POLL_SECONDS", 0.01)


@pytest.fixture
def bin_(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in (("systemctl", SYSTEMCTL), ("kubectl", KUBECTL)):
        _script(folder / name, text)
    (folder / "unit").write_text("active\n")
    (folder / "wanted").write_text("3\n")
    (folder / "present").write_text("3\n")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[AffectedSettings]:
    path = tmp_path / "workers"
    _script(path, DAEMON)
    commands = {word: [str(path), word] for word in ("status", "stop", "start")}
    made = AffectedSettings.model_validate({"command": "workers", **commands})
    yield made
    state = Quiesce([made])
    if state.look() != {"workers": STOPPED}:
        state.stop({"workers": RUNNING})


def _script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(stat.S_IRWXU)


def test_what_runs_is_stopped_and_becomes_what_it_was(bin_: Path, daemon: AffectedSettings) -> None:
    started = Quiesce([daemon])
    started.resume({"workers": RUNNING})
    services = Quiesce([UNIT, WORKLOAD, daemon])
    before = services.look()
    assert before == {
        "neuroca-api.service": RUNNING,
        "deployment/neuroca-worker in neuroca": "3 replicas",
        "workers": RUNNING,
    }
    notes = services.stop(before)
    assert set(services.look().values()) == {STOPPED}
    assert "deployment/neuroca-worker in neuroca is stopped; it was 3 replicas" in notes
    services.stop(before)  # a repeat
    services.resume(before)
    services.resume(before)
    assert services.look() == before
    scaled = [line for line in (bin_ / "calls").read_text().splitlines() if " scale " in line]
    assert scaled == [
        f"kubectl scale deployment/neuroca-worker --namespace neuroca --replicas={n}"
        for n in (0, 3)
    ]


def test_what_was_stopped_before_stays_stopped(bin_: Path) -> None:
    (bin_ / "unit").write_text("failed\n")
    services = Quiesce([UNIT])
    before = services.look()
    services.stop(before)
    assert services.resume(before) == ("neuroca-api.service stays stopped, as it was before",)
    assert " start " not in (bin_ / "calls").read_text()


def test_one_that_does_not_stop_is_an_error_and_afterwards_all_run_again(bin_: Path) -> None:
    (bin_ / "stuck").touch()
    soon = UNIT.model_copy(update={"timeout": UNIT.timeout / 600})
    services = Quiesce([WORKLOAD, soon])
    before = services.look()
    with pytest.raises(TransientError, match=r"neuroca-api\.service did not stop within 0 s"):
        services.stop(before)
    assert services.look()[WORKLOAD.name] == STOPPED, "who stops it starts it again"
    services.resume(before)
    assert services.look() == before


@pytest.mark.parametrize("state", ["maintenance", ""])
def test_a_state_that_nobody_can_tell_is_not_stopped(bin_: Path, state: str) -> None:
    (bin_ / "unit").write_text(state)
    with pytest.raises(PermanentError, match="Nobody can tell whether"):
        Quiesce([UNIT]).look()


def test_pods_that_are_still_there_are_not_stopped(bin_: Path) -> None:
    (bin_ / "wanted").write_text("0")
    assert Quiesce([WORKLOAD]).look() != {WORKLOAD.name: STOPPED}


def test_a_unit_that_systemd_does_not_know_is_an_error(bin_: Path) -> None:
    other = AffectedSettings.model_validate({"systemd": "neuroca-apj.service"})
    with pytest.raises(PermanentError, match="does not know the unit neuroca-apj"):
        Quiesce([other]).look()


def test_a_cluster_that_refuses_is_an_error_in_its_own_words(bin_: Path) -> None:
    (bin_ / "refused").touch()
    with pytest.raises(PermanentError, match="Forbidden"):
        Quiesce([WORKLOAD]).look()


def test_a_status_command_that_fails_is_not_stopped(tmp_path: Path) -> None:
    path = tmp_path / "broken"
    _script(path, "#!/bin/sh\necho cannot tell >&2\nexit 1\n")
    words = {word: [str(path)] for word in ("status", "stop", "start")}
    broken = AffectedSettings.model_validate({"command": "broken", **words})
    with pytest.raises(PermanentError, match="cannot tell"):
        Quiesce([broken]).look()


def test_a_tool_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ToolMissingError, match="kubectl was not found"):
        Quiesce([WORKLOAD]).look()


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({}, "has no kind; Write one of systemd, kubernetes, command"),
        ({"systemd": "a.service", "command": "b"}, "is systemd and command at once"),
        ({"systemd": "neuroca-api"}, "is not the name of a unit"),
        ({"systemd": "--help.service"}, "is not the name of a unit"),
        ({"kubernetes": "neuroca-api"}, "is not a workload"),
        ({"systemd": "a.service", "namespace": "b"}, "is a word for kubernetes"),
        ({"systemd": "a.service", "stop": ["/bin/true"]}, "needs `command`"),
        ({"command": "a", "stop": ["/b"], "start": ["/b"]}, "is missing"),
        (
            {"command": "a", "status": ["b"], "stop": ["/b"], "start": ["/b"]},
            "does not begin with an absolute path",
        ),
    ],
)
def test_an_impossible_service_is_refused(given: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        AffectedSettings.model_validate(given)
