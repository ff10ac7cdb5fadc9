"""Planning a recovery: the form, what covers what, the digest, the estimate, the verdict."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from neuroca_backup.errors import (
    AccessDeniedError,
    BackupError,
    ConfigurationError,
    TargetRefusedError,
    ToolFailedError,
    TransientError,
    UnreachableError,
)
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.identity import Component
from neuroca_backup.model.recovery import Declared, Event, EventKind, Objective
from neuroca_backup.model.tickets import RestorePlan
from neuroca_backup.services.forecast import Forecast
from neuroca_backup.services.recovery import hooks, security, tiers
from neuroca_backup.services.recovery.estimate import estimates
from neuroca_backup.services.recovery.plan import PlannedComponent, PlannedSource, RecoveryPlan
from neuroca_backup.services.recovery.plan_document import markdown
from neuroca_backup.services.recovery.request import RecoveryRequest
from neuroca_backup.services.recovery.verdict import INCOMPLETE, NOT_APPROVED, RECOVERED, verdict
from neuroca_backup.services.recovery.verification import required_checks
from neuroca_backup.settings import CommandSettings, RecoverySettings, Settings

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
STORY = "the region is gone"


def settings(**recovery: Any) -> Settings:
    return Settings.model_validate(
        {
            "schedule": {},
            "storage": {
                "primary": {"type": "local", "path": "/a"},
                "secondary": {"type": "local", "path": "/b"},
            },
            "retention": {},
            "encryption": {"key_management": "local", "local_key_file": "/k"},
            "recovery": recovery,
        }
    )


def planned(source: str, component: Component, *, hour: int = 2, **more: Any) -> PlannedSource:
    backup_id = f"20261123T{hour:02}0000Z-1f0c9a3e-{source}"
    plan = RestorePlan(
        restore_id=f"restore-{source}",
        backup_id=backup_id,
        component=component.value,
        source=source,
        engine="postgresql",
        stores=("primary", "secondary"),
        plain_size=1000,
        members=1,
        taken_at=NOW.isoformat(),
        verified=True,
        chain=(backup_id,),
    )
    return PlannedSource(
        **{
            "source": source,
            "component": component,
            "plan": plan,
            "to": "a throwaway server of this run",
            "forecast": Forecast(seconds=60.0, measured=True, basis="measured"),
            "brings_back": NOW.replace(hour=hour),
            "loss_seconds": 36_000.0,
            "form": {"source": source, "target": "sandbox"},
            **more,
        }
    )


def plan(*sources: PlannedSource, **more: Any) -> RecoveryPlan:
    return RecoveryPlan(
        **{
            "recovery_id": "20261123T120000Z-recovery-1f0c9a3e",
            "what_happened": STORY,
            "actor": "alice",
            "declared_at": NOW,
            "made_at": NOW,
            "recover_to": "newest",
            "target": "in_place",
            "prefer_store": "auto",
            "allow_older": True,
            "approvals": 1,
            "components": (),
            "sources": sources,
            "priorities": (("database", tuple(one.source for one in sources)),),
            **more,
        }
    )


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"targets": "drill"}, "no field 'targets'"),
        ({"target": "sandbox"}, "target: 'sandbox' is not a choice"),
        ({"components": ["databases"]}, "components: 'databases' is not a choice"),
        ({"declared_at": "yesterday"}, "declared_at: 'yesterday' means nothing"),
        ({"declared_at": "2026-11-23T02:00:00"}, "no time zone"),
        ({"recover_to": "last week"}, "Write newest, the id of a backup set, or a time"),
        ({"approvals": 3}, "approvals: 3 is not a choice"),
        ({"approvals": True}, "approvals: True is not a choice"),
        ({"keep_sandbox": "no"}, "neither true nor false"),
        ({"connections": {"postgres": "x"}}, "connections are given, and target is 'drill'"),
        ({"target": "in_place", "confirm": "all"}, "what_happened is empty"),
        (
            {"target": "in_place", "what_happened": STORY, "confirm": "all", "approvals": 0},
            "recovery.approvals in backup.yaml asks for 1",
        ),
        (
            {"target": "new_environment", "what_happened": STORY, "connections": {"pg": "x"}},
            "'pg': 'x' says of no source where it goes",
        ),
        (
            {
                "target": "new_environment",
                "what_happened": STORY,
                "components": ["logs"],
                "connections": {"logs": "a_connection"},
            },
            "logs needs an absolute directory",
        ),
    ],
)
def test_a_form_that_means_nothing_is_refused_in_one_sentence(
    form: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        RecoveryRequest.parse(form, settings())
    assert words in str(caught.value)


def test_the_form_as_it_comes_is_a_drill_of_everything_that_nobody_has_to_approve() -> None:
    request = RecoveryRequest.parse({}, settings(approvals=2))

    assert request.drill
    assert request.needed(settings(approvals=2)) == 0
    assert request.lost(settings()) == tuple(Component)
    assert request.restore_form("postgres")["target"] == "sandbox"


def test_a_recovery_in_place_has_to_be_confirmed_in_words() -> None:
    form = {"target": "in_place", "what_happened": STORY, "components": ["logs", "database"]}
    with pytest.raises(TargetRefusedError, match="set confirm to 'database,logs'"):
        RecoveryRequest.parse({**form, "confirm": "all"}, settings())

    request = RecoveryRequest.parse({**form, "confirm": "database,logs"}, settings())

    assert request.needed(settings(approvals=2)) == 2
    assert request.restore_form("postgres") == {
        **request.restore_form("postgres"),
        "target": "in_place",
        "confirm": "postgres",
        "save_first": True,
    }


def test_in_a_new_environment_every_source_needs_a_place_and_tiers_follow_their_databases() -> None:
    form: dict[str, Any] = {
        "target": "new_environment",
        "what_happened": STORY,
        "components": ["database", "memory_tiers", "model_weights"],
        "connections": {"postgres": "new_pg", "mongodb": "new_mongo", "redis": "new_redis"},
    }
    with pytest.raises(ConfigurationError, match="does not say where vector goes"):
        RecoveryRequest.parse(form, settings())
    form["connections"] |= {"vector": "new_milvus", "models": "/srv/models"}

    request = RecoveryRequest.parse(form, settings())

    assert request.connections["working"] == "new_redis"
    assert request.restore_form("semantic")["target_connection"] == "new_milvus"
    assert request.restore_form("models__llama")["target_directory"] == "/srv/models/llama"


def test_what_this_airflow_works_with_is_left_as_it_is_but_in_a_drill() -> None:
    in_place = RecoveryRequest(target="in_place")

    assert in_place.leaves("airflow", "airflow_metadata")
    assert not in_place.leaves("configuration", "filetree")
    assert not RecoveryRequest().leaves("airflow", "airflow_metadata")
    new = RecoveryRequest(target="new_environment", connections={"airflow": "new_airflow"})
    assert not new.leaves("airflow", "airflow_metadata")


@pytest.mark.parametrize(("hour", "left_to"), [(1, "redis"), (2, "redis"), (3, "")])
def test_a_tier_is_left_to_its_database_unless_its_own_backup_is_newer(
    hour: int, left_to: str
) -> None:
    found = [
        planned("redis", Component.DATABASE, hour=2),
        planned("working", Component.MEMORY_TIERS, hour=hour),
    ]

    _, working = tiers.related(found, settings())

    assert (working.covered_by, working.left_to) == ("redis", left_to)


def test_a_tier_whose_database_cannot_be_restored_is_restored_by_itself() -> None:
    found = [
        PlannedSource(source="redis", component=Component.DATABASE, problem="no backup"),
        planned("working", Component.MEMORY_TIERS, hour=1),
    ]

    assert tiers.related(found, settings())[1].left_to == ""


def test_the_digest_is_of_what_is_done_and_of_nothing_that_changes_by_itself() -> None:
    one = plan(planned("postgres", Component.DATABASE))
    later = one.model_copy(update={"made_at": NOW + timedelta(hours=1), "estimates": ()})
    assert later.sha256 == one.sha256
    assert RecoveryPlan.decode(one.encode(), name="plan.json") == one

    source = one.sources[0]
    others = [
        one.model_copy(update={"target": "new_environment"}),
        one.model_copy(update={"approvals": 0}),
        one.model_copy(update={"provision": ("/bin/true",)}),
        one.model_copy(update={"redirect": ("/bin/true",)}),
        one.model_copy(update={"priorities": ()}),
        one.model_copy(update={"sources": (source.model_copy(update={"to": "elsewhere:5432"}),)}),
        one.model_copy(update={"sources": (source.model_copy(update={"form": {}}),)}),
        one.model_copy(update={"sources": (source.model_copy(update={"plan": None}),)}),
    ]
    assert len({one.sha256, *(other.sha256 for other in others)}) == len(others) + 1


def test_the_plan_in_words_begins_with_what_cannot_be_restored() -> None:
    lost = PlannedSource(source="vector", component=Component.DATABASE, problem="no backup of it")
    text = markdown(
        plan(
            planned("postgres", Component.DATABASE),
            lost,
            components=(
                PlannedComponent(
                    component=Component.DATABASE,
                    set_id="20261123T020000Z-1f0c9a3e",
                    skew_seconds=3.0,
                    loss_seconds=36_000.0,
                    rpo=timedelta(hours=4),
                ),
            ),
        )
    )

    assert text.index("**vector**: no backup of it") < text.index("What comes back")
    assert (
        "| database | 20261123T020000Z-1f0c9a3e | 3 s | 10 h 0 min | 4 h 0 min | MISSED |" in text
    )
    assert "IN PLACE" in text


def test_an_estimate_adds_the_priorities_before_and_says_what_may_come_of_it() -> None:
    sources = (
        planned("configuration", Component.CONFIGURATION),
        planned("postgres", Component.DATABASE),
        planned("redis", Component.DATABASE),
        planned("logs", Component.LOGS),
    )
    priorities = (
        ("configuration", ("configuration",)),
        ("database", ("postgres", "redis")),
        ("logs", ("logs",)),
    )

    def outlook(limit: float, used: float) -> str:
        wanted = {"database": Objective(limit_seconds=limit, sources=("postgres", "redis"))}
        (found,) = estimates(wanted, sources, priorities, used=used)
        assert (found.best_seconds, found.worst_seconds) == (120.0, 180.0)
        return found.outlook

    assert outlook(1000, 0) == "likely to be met"
    assert outlook(1000, 850) == "at risk"
    assert outlook(1000, 900) == "likely to be missed"
    assert outlook(1000, 1001) == "already missed"


def test_priorities_of_backup_yaml_name_sources_and_components_each_once() -> None:
    order = settings(
        priorities={
            "first": ["postgres"],
            "then": ["database", "memory_tiers"],
            "last": ["configuration", "model_weights", "logs"],
        }
    ).recovery.order(settings().sources)

    assert order["first"] == ("postgres",)
    assert order["then"] == ("mongodb", "redis", "vector", "working", "episodic", "semantic")
    assert order["last"] == ("configuration", "airflow", "models", "logs")


@pytest.mark.parametrize(
    ("priorities", "words"),
    [
        ({"a": ["database"]}, "has no priority"),
        ({"a": [*Component], "b": ["databases"]}, "neither a component nor a source"),
        ({"a": [*Component], "b": ["logs"]}, "has two priorities"),
        ({"A B": [*Component]}, "is not the name of a priority"),
    ],
)
def test_priorities_that_would_forget_a_source_or_restore_it_twice_are_refused(
    priorities: dict[str, list[str]], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        settings(priorities=priorities)


def event(kind: EventKind, subject: str = "", **details: Any) -> Event:
    return Event(at=NOW, kind=kind, subject=subject, actor="me", details=details)


DECLARED = Declared(
    recovery_id="20261123T120000Z-recovery-1f0c9a3e",
    what=STORY,
    declared_at=NOW,
    recorded_at=NOW,
    actor="me",
    drill=False,
    components=(Component.DATABASE,),
    target="in place",
    objectives={
        "full_system": Objective(limit_seconds=60, sources=("postgres",), checks=("security",))
    },
)
BACK = [
    event(EventKind.STARTED, "postgres"),
    event(EventKind.RESTORED, "postgres"),
    event(EventKind.CHECKED, "postgres", passed=True),
]


def test_a_recovery_is_complete_when_the_journal_says_so_of_everything() -> None:
    passed = event(EventKind.CHECKED, "security", passed=True)

    assert verdict(DECLARED, [*BACK, passed], approved=True).outcome == RECOVERED
    lacking = verdict(DECLARED, BACK, approved=True)
    assert (lacking.outcome, lacking.reasons) == (
        INCOMPLETE,
        ("the check security has not passed",),
    )
    failed = event(EventKind.FAILED, "postgres", problem="disk full")
    assert verdict(DECLARED, [failed, passed], approved=True).reasons == (
        "postgres is not back: disk full",
    )
    rejected = event(EventKind.REJECTED, comment="rejected by bob")
    assert verdict(DECLARED, [rejected], approved=False).outcome == NOT_APPROVED


def test_a_drill_does_not_wait_for_checks_that_it_cannot_ask() -> None:
    recovery = RecoverySettings.model_validate(
        {"checks": [{"name": "api", "command": ["/bin/true"]}]}
    )
    one = plan(planned("postgres", Component.DATABASE))

    drill = one.model_copy(update={"target": "drill"})
    assert required_checks(drill, recovery) == ("verify.databases",)
    assert required_checks(one, recovery) == (
        "verify.databases",
        "verify.functionality:api",
        "verify.performance",
        "verify.security",
    )


def command(*words: str, timeout: str = "1m") -> CommandSettings:
    return CommandSettings.model_validate({"command": words, "timeout": timeout})


def test_a_command_gets_no_shell_no_secrets_and_the_id_of_the_recovery(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_SECRET", "hunter2")

    said = hooks.run(command("/usr/bin/env"), recovery_id="20261123T120000Z-drill-1f0c9a3e")
    told = hooks.run(command("/bin/echo", "$HOME; ls"), recovery_id="x")

    assert "NEUROCA_RECOVERY_ID=20261123T120000Z-drill-1f0c9a3e" in said
    assert "hunter2" not in "".join(said)
    assert told == ["$HOME; ls"]


def test_a_command_that_fails_or_hangs_says_so_and_leaves_nothing_running(tmp_path: Path) -> None:
    with pytest.raises(ToolFailedError, match="exited with 3; its last words: no quota"):
        hooks.run(command("/bin/sh", "-c", "echo no quota; exit 3"), recovery_id="x")
    mark = tmp_path / "mark"
    slow = command(sys.executable, "-c", f"import time; time.sleep(2); open({str(mark)!r}, 'w')")
    with pytest.raises(TransientError, match="did not end"):
        hooks.run(slow.model_copy(update={"timeout": timedelta(seconds=0.2)}), recovery_id="x")
    assert not mark.exists()
    with pytest.raises(ConfigurationError, match="not the command that was approved"):
        hooks.require_planned(("/bin/a",), ("/bin/b",), name="recovery.provision")


class Asked:
    """Stands in for an engine: who may log in, or what comes of it."""

    def __init__(self, outcome: dict[str, BackupError | None]) -> None:
        self.outcome = outcome

    def probe(self, endpoint: Endpoint) -> str:
        found = self.outcome.get(endpoint.user, AccessDeniedError("no", remedy=""))
        if found is not None:
            raise found
        return "16"


def test_security_is_asked_as_far_as_it_can_be_and_says_what_was_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = Endpoint(kind="postgres", host="127.0.0.1", user="nca", password="Xk-29fk")

    def look(endpoint: Endpoint, outcome: dict[str, BackupError | None]) -> dict[str, bool | None]:
        monkeypatch.setattr(security.engines, "named", lambda _: Asked(outcome))
        return {one.question: one.well for one in security.look(endpoint, "postgresql")}

    good = look(server, {})
    assert good["Is the way to it encrypted"] is None, "it does not leave this machine"
    assert good["Is the password of the connection its own"] is True
    assert good["Are strangers kept out (postgres, no password)"] is True
    assert good["Is its address a private one"] is True
    open_door = look(server, {"postgres": None})
    assert open_door["Are strangers kept out (postgres, no password)"] is False
    silent = look(server, {"postgres": UnreachableError("away", remedy="")})
    assert silent["Are strangers kept out (postgres, a well-known password)"] is None
    bare = look(Endpoint(kind="postgres", host="10.1.2.3", password="postgres"), {})
    assert bare["Is the way to it encrypted"] is False
    assert bare["Is the password of the connection its own"] is False


def test_files_that_others_may_write_are_a_finding(tmp_path: Path) -> None:
    def look(mode: int) -> bool | None:
        tmp_path.chmod(mode)
        (found,) = security.look(Endpoint.this_machine(tmp_path), "filetree")
        return found.well

    assert (look(0o755), look(0o775), look(0o757)) == (True, False, False)
