"""The DAG `disaster_recovery`: a whole system comes back, step by step; or a drill of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, CronTriggerTimetable, Param, TaskGroup, chain, task_group

from neuroca_backup.model.identity import Component
from neuroca_backup.notifications.failure import FailureNotice
from neuroca_backup.operators.groups import queue_for, queue_of
from neuroca_backup.operators.recovery_activate import (
    ApproveRecoveryOperator,
    NotifyTeamOperator,
)
from neuroca_backup.operators.recovery_assess import PlanRecoveryOperator, SurveyOperator
from neuroca_backup.operators.recovery_infrastructure import (
    AnswersSensor,
    ProvisionOperator,
    TargetsOperator,
)
from neuroca_backup.operators.recovery_report import ReportOperator
from neuroca_backup.operators.recovery_restore import (
    ChooseOperator,
    ClearOperator,
    RecoveredOperator,
    SaveFirstOperator,
    StartOperator,
)
from neuroca_backup.operators.recovery_return import (
    BackUpAgainOperator,
    ConfirmOperator,
    MonitorSensor,
    RedirectOperator,
    RemoveSandboxesOperator,
)
from neuroca_backup.operators.recovery_services import (
    NoteServicesOperator,
    ResumeServicesOperator,
    StopServicesOperator,
)
from neuroca_backup.operators.recovery_step import (
    ACTIVATE,
    ASSESS,
    INFRASTRUCTURE,
    RESTORE,
    RETURN,
    SOURCE_GROUP,
    VERIFY,
)
from neuroca_backup.operators.recovery_verify import (
    ComponentPointOperator,
    FunctionalityOperator,
    PerformanceOperator,
    SecurityOperator,
    UncheckedOperator,
)
from neuroca_backup.operators.restore import (
    STALE_SANDBOX,
    CompareOperator,
    ExamineOperator,
    LoadOperator,
    PublishOperator,
)
from neuroca_backup.operators.restore_checks import (
    IntegrityOperator,
    SandboxOperator,
    SpaceOperator,
    StateOperator,
    VersionsOperator,
)
from neuroca_backup.sensors.recovery_objective import RecoveryObjectiveSensor
from neuroca_backup.settings import Role, default_path, load

DOC = """
### Brings a whole system back, in the six steps of the runbook

Trigger it with the form. Without changes it is a **drill**: everything is restored into throwaway
servers, asked, and removed again; nothing else is touched. It also runs by itself as a drill, at
`recovery.drill_schedule`.

1. **assess** asks who answers, and makes the plan: what comes back from which backup, what is lost,
   how long it will take. Its text is the log of `assess.plan`, and is stored beside the backups.
2. **activate** tells the team, and asks other people to approve exactly this plan, under *Required
   Actions*. Who triggered the run cannot. Without their answer nothing is touched.
3. **infrastructure** makes new servers with your command, waits until every target answers, and
   checks each: versions, room, state.
4. **restore** has a group for each priority of backup.yaml, one after the other; its sources are
   restored side by side. One that fails stops no other.
5. **verify** asks the whole once more: databases, memory tiers, configuration, your own checks,
   speed, security.
6. **return** asks before traffic is led back, watches, makes the first new backups, and reports.

The tasks **rto_...** beside them are the clocks of the recovery time objectives, which count from
the declared disaster. A red one is an objective that was missed; it stops nothing.

**A task is red.** The last lines of its log say what is wrong and what to do. Mend it, then clear
the red tasks with everything downstream: what is restored stays, what is not is restored then.
`return.report` is red unless everything is back; its log lists what is not.
"""

settings = load(default_path())
recovery = settings.recovery
components = list(dict.fromkeys(source.component.value for source in settings.sources.values()))

PARAMS = {
    "what_happened": Param(
        "",
        type="string",
        title="What happened",
        description="In a sentence or two. It is in the plan that others approve, and in the "
        "report. Empty only for a drill.",
        maxLength=2000,
        format="multiline",
    ),
    "components": Param(
        None,
        type=["null", "array"],
        items={"type": "string", "enum": components},
        examples=components,
        title="What is lost",
        description="The components to bring back. Empty: all of them.",
    ),
    "declared_at": Param(
        None,
        type=["null", "string"],
        format="date-time",
        title="Declared at",
        description="When the disaster began: the clocks of the objectives count from here. Empty: "
        "from the start of this run.",
    ),
    "recover_to": Param(
        "newest",
        type="string",
        title="Recover to",
        description="newest: the newest complete backup set of each component. Or a time with its "
        "offset, such as 2026-11-23T02:00:00Z: nothing later comes back. Or the id of a set, such "
        "as 20261123T020000Z-1f0c9a3e; the other components then come from before it.",
    ),
    "target": Param(
        "drill",
        type="string",
        enum=["drill", "new_environment", "in_place"],
        values_display={
            "drill": "A drill: throwaway servers",
            "new_environment": "A new environment, by the connections below",
            "in_place": "In place: replace the data at every source's own address",
        },
        title="Target",
        description="Where everything goes.",
    ),
    "connections": Param(
        None,
        type=["null", "object"],
        title="Connections of the new environment",
        description="By source the id of an Airflow connection to its new server, or for files an "
        'absolute directory: {"postgres": "new_postgres", "configuration": "/srv/nca/etc"}. A '
        "memory tier that is left out goes where its database goes. The connections may be made "
        "by the provisioning command.",
    ),
    "confirm": Param(
        None,
        type=["null", "string"],
        title="Confirm",
        description="For a recovery in place only: type all, or the components that are lost with "
        "commas between them.",
    ),
    "prefer_store": Param(
        "auto",
        type="string",
        enum=["auto", "primary", "secondary"],
        values_display={
            "auto": "Nearest good copy",
            "primary": "Primary first",
            "secondary": "Secondary first",
        },
        title="Read from",
        description="The store to try first; a damaged or missing copy falls back to the other.",
    ),
    "approvals": Param(
        None,
        type=["null", "integer"],
        minimum=0,
        maximum=2,
        title="Approvals needed",
        description="How many people other than you must approve the plan. Empty: "
        f"{recovery.approvals}, as backup.yaml says, and none for a drill. Never fewer than that.",
    ),
    "allow_older": Param(
        default=True,
        type="boolean",
        title="Allow older backups",
        description="Where no store has the chosen backup whole, restore the newest older one that "
        "is verified and good. The report says so.",
    ),
    "save_first": Param(
        default=True,
        type="boolean",
        title="Save what is overwritten",
        description="In place only: back up what still runs before it is overwritten. Switch it "
        "off where the servers are dead, or not worth saving.",
    ),
    "notify": Param(
        None,
        type=["null", "array"],
        items={"type": "string"},
        title="Tell these people, too",
        description="E-mail addresses, one a line, beside those in backup.yaml.",
    ),
    "keep_sandbox": Param(
        default=False,
        type="boolean",
        title="Keep the throwaway servers",
        description="Of a drill, to look at the data. They hold production data in clear: stop "
        "them when you are done.",
    ),
}


def restore_of(priority: str) -> TaskGroup:
    """Add the group of one priority: which sources, and the steps of each; return the group."""
    with TaskGroup(group_id=priority) as group:
        choose = ChooseOperator(task_id="choose", priority=priority, trigger_rule="all_done")

        @task_group(group_id=SOURCE_GROUP, tooltip="The steps of one source's restore")
        def of_source(order: Any) -> None:
            """Add the tasks of one source; `order` is what `choose` says of it."""
            clear = ClearOperator(task_id="clear", order=order)
            chain(
                StartOperator(task_id="fetch", order=order),
                StopServicesOperator(task_id="stop", order=order),
                SaveFirstOperator(task_id="save", order=order),
                LoadOperator(task_id="load", order=order),
                CompareOperator(task_id="compare", order=order),
                PublishOperator(task_id="publish", order=order),
                ExamineOperator(task_id="examine", order=order),
                RecoveredOperator(task_id="record", order=order, trigger_rule="all_done"),
                clear.as_teardown(on_failure_fail_dagrun=True),
            )

        of_source.expand(order=choose.output)
    return group


with DAG(
    dag_id="disaster_recovery",
    description="Bring the whole system back by priority, or drill it, against its RTOs",
    schedule=CronTriggerTimetable(recovery.drill_schedule, timezone="UTC")
    if recovery.drill_schedule
    else None,
    catchup=False,
    max_active_runs=3,  # neither a drill nor a plan that awaits its approval may hold up another
    tags=["neuroca", "recovery"],
    params=PARAMS,
    doc_md=DOC,
    on_failure_callback=FailureNotice(settings.notifications),
    default_args={
        "owner": "neuroca",
        "retries": 2,
        "retry_delay": timedelta(seconds=30),
        "retry_exponential_backoff": 2,
        "max_retry_delay": timedelta(minutes=5),
        "execution_timeout": settings.objectives.rto.full_system,
        # The spool and the sandboxes are on one machine.
        **(queue_of(settings.pipeline) | queue_for(Role.RESTORER, settings.access)),
    },
) as dag:
    with TaskGroup(group_id=ASSESS, tooltip="What is lost, what there is, and the plan"):
        plan = PlanRecoveryOperator(task_id="plan", reached=SurveyOperator(task_id="survey").output)

    clocks = [
        RecoveryObjectiveSensor(
            task_id=f"rto_{objective}",
            recovery_id="{{ ti.xcom_pull(task_ids='assess.plan')['recovery_id'] }}",
            objective=objective,
            execution_timeout=None,
        )
        for objective in settings.objectives.rto.names
    ]

    with TaskGroup(group_id=ACTIVATE, tooltip="The team is told, and other people approve"):
        notify = NotifyTeamOperator(task_id="notify")
        approve = ApproveRecoveryOperator(
            task_id="approve", place=1, response_timeout=recovery.response_timeout
        )
        again = ApproveRecoveryOperator(
            task_id="approve_again", place=2, response_timeout=recovery.response_timeout
        )
        approve >> again

    with TaskGroup(group_id=INFRASTRUCTURE, tooltip="New servers, and every target asked"):
        provision = ProvisionOperator(task_id="provision", retries=0)
        services = NoteServicesOperator(task_id="services", trigger_rule="none_failed")
        targets = TargetsOperator(task_id="targets", trigger_rule="none_failed")

        @task_group(group_id="target", tooltip="What is looked at before one source's restore")
        def look_at(order: Any) -> None:
            """Add the checks of one source; `order` is what `targets` says of it."""
            chain(
                AnswersSensor(
                    task_id="answers",
                    order=order,
                    poke_interval=15,
                    timeout=recovery.answer_within.total_seconds(),
                ),
                SandboxOperator(task_id="sandbox", order=order, forget_after=STALE_SANDBOX),
                SpaceOperator(task_id="space", order=order),
                IntegrityOperator(task_id="integrity", order=order),
                VersionsOperator(task_id="versions", order=order),
                StateOperator(task_id="state", order=order),
            )

        looked = look_at.expand(order=targets.output)
        provision >> [services, targets]

    with TaskGroup(group_id=RESTORE, tooltip="By priority; sources of one side by side"):
        priorities = [restore_of(name) for name in recovery.order(settings.sources)]
        chain(*priorities)

    with TaskGroup(group_id=VERIFY, tooltip="The whole system asked once more"):
        resume = ResumeServicesOperator(task_id="start_services", trigger_rule="all_done")
        after = {"trigger_rule": "all_done", "retries": 1}
        points = [
            ComponentPointOperator(task_id="databases", component=Component.DATABASE, **after),
            ComponentPointOperator(
                task_id="memory_tiers", component=Component.MEMORY_TIERS, **after
            ),
            ComponentPointOperator(
                task_id="configuration", component=Component.CONFIGURATION, **after
            ),
            FunctionalityOperator.partial(task_id="functionality", **after).expand(
                check=[check.name for check in recovery.checks]
            )
            if recovery.checks
            else UncheckedOperator(task_id="functionality", **after),
            PerformanceOperator(task_id="performance", **after),
            SecurityOperator(task_id="security", **after),
        ]
        resume >> points

    with TaskGroup(group_id=RETURN, tooltip="Traffic, watching, first new backups, the report"):
        confirm = ConfirmOperator(
            task_id="confirm",
            response_timeout=settings.objectives.rto.full_system,
            trigger_rule="all_done",
        )
        redirect = RedirectOperator(task_id="redirect", retries=0)
        monitor = MonitorSensor(
            task_id="monitor",
            window=recovery.monitor,
            poke_interval=30,
            trigger_rule="none_failed",
            execution_timeout=None,
        )
        backups = [
            BackUpAgainOperator(
                task_id=f"back_up_{component}", component=component, trigger_rule="none_failed"
            )
            for component in components
        ]
        clean_up = RemoveSandboxesOperator(task_id="clean_up", trigger_rule="all_done")
        report = ReportOperator(task_id="report", trigger_rule="all_done")
        chain(confirm, redirect, [monitor, *backups], clean_up, report)

    chain(plan, clocks)
    chain(plan, [notify, approve])
    chain(again, provision)
    chain([looked, services], priorities[0])
    chain(priorities[-1], resume)
    chain(points, confirm)
