"""Stages killed at every point, and twice at once: one good backup, or none; never a half one."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator
from multiprocessing import forkserver
from typing import TYPE_CHECKING, Any

import pytest

from neuroca_backup.engines import RestoreTarget
from neuroca_backup.errors import NotFoundError
from neuroca_backup.model.identity import Component
from neuroca_backup.services.inventory import Inventory
from support import killed_stage
from support.wiring import (
    add_rows,
    count_rows,
    databases,
    fresh_ref,
    keys_in,
    plan_of,
    restore,
    spool_names,
)

if TYPE_CHECKING:
    from conftest import Bench
    from neuroca_backup.model.identity import BackupRef
    from neuroca_backup.runtime import Runtime

STAGED = ["dump", "compress", "encrypt", "upload", "replicate"]
STREAMED = ["stream", "replicate"]

FOLDER_POINTS = ["before the folder is complete", "after the folder is complete"]
STORE_POINTS = [
    "before a member is stored",
    "after a member is stored",
    "before the keys",
    "before the manifest",
    "after the manifest",
]
POINTS = [
    *(("dump", point) for point in FOLDER_POINTS),
    *(
        (stage, point)
        for stage in ("compress", "encrypt")
        for point in (
            *FOLDER_POINTS,
            "before the source is removed",
            "after the source is removed",
        )
    ),
    *(("upload", point) for point in (*STORE_POINTS, "before the spool is cleared")),
    *((stage, point) for stage in ("stream", "replicate") for point in STORE_POINTS),
]


@pytest.fixture(scope="module")
def children() -> Iterator[Any]:
    """Processes forked from one that has imported everything, and runs no thread."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["support.killed_stage"])
    yield context
    forkserver._forkserver._stop()  # type: ignore[attr-defined]


def child(
    children: Any, bench: Bench, ref: BackupRef, stage: str, *, ticket: Any = None, point: str = ""
) -> tuple[Any, Any]:
    """Start a child; return its process and the end of the pipe that it answers on."""
    task = {
        "places": bench.places,
        "postgres": bench.source,
        "spool": bench.spool,
        "mode": "streamed" if stage == "stream" else "staged",
        "options": {"databases": [bench.database], "jobs": 1},
        "ref": ref,
        "stage": stage,
        "ticket": ticket,
        "point": point,
    }
    ours, theirs = children.Pipe(duplex=False)
    process = children.Process(target=killed_stage.run, args=(task, theirs))
    process.start()
    theirs.close()
    return process, ours


def assert_one_good_backup(runtime: Runtime, ref: BackupRef) -> None:
    """The inventory has this one backup, whole in both stores, with nothing beside it."""
    runtime.verifier.verify(ref)
    listed = list(Inventory(runtime.stores).newest_first(Component.DATABASE, "postgres"))
    assert [found.ref for found in listed] == [ref]
    assert listed[0].manifests.keys() == {"primary", "secondary"}
    assert not listed[0].problems
    attempts = {manifest.attempt for manifest in listed[0].manifests.values()}
    assert len(attempts) == 1
    (attempt,) = attempts
    for store in runtime.stores:
        for key in keys_in(runtime, store, ref):
            inner = key.removeprefix(f"{ref.prefix}/")
            assert inner.startswith(f"{attempt}/") or inner in {
                "manifest.json",
                "verification.json",
            }
    assert spool_names(runtime) == []
    plan = plan_of(runtime)
    assert runtime.restores.fetch(plan).size == plan.plain_size


def assert_no_half_backup(runtime: Runtime) -> None:
    """Whatever the stores hold now, a restore finds a whole backup or says that there is none."""
    try:
        plan = plan_of(runtime)
    except NotFoundError:
        return
    runtime.restores.fetch(plan)


@pytest.mark.parametrize(("stage", "point"), POINTS)
def test_a_stage_killed_at_any_point_is_repeated_to_one_good_backup(
    bench: Bench, children: Any, stage: str, point: str
) -> None:
    stages = STREAMED if stage == "stream" else STAGED
    runtime = bench.runtime("streamed" if stage == "stream" else "staged")
    ref = fresh_ref(runtime)
    ticket: Any = None
    for one in stages:
        if one == stage:
            killed, answer = child(children, bench, ref, one, ticket=ticket, point=point)
            killed.join(60)
            assert killed.exitcode == -signal.SIGKILL
            with pytest.raises(EOFError):
                answer.recv()
            assert_no_half_backup(runtime)
        if one in {"dump", "stream", "replicate"}:
            ticket = getattr(runtime.backups, one)(ref)
        else:
            ticket = getattr(runtime.backups, one)(ticket)
    runtime.backups.clear(ref)
    assert_one_good_backup(runtime, ref)


@pytest.mark.parametrize("mode", ["staged", "streamed"])
def test_of_two_processes_with_the_same_backup_one_wins(
    bench: Bench, children: Any, mode: str
) -> None:
    runtime = bench.runtime(mode)
    ref = fresh_ref(runtime)
    stage = "run" if mode == "staged" else "stream"
    both = [child(children, bench, ref, stage) for _ in range(2)]
    errors = [answer.recv() for _, answer in both]
    for process, _ in both:
        process.join(60)
    assert "" in errors
    assert all("Another process is working on" in error for error in errors if error)
    runtime.backups.replicate(ref)
    assert_one_good_backup(runtime, ref)
    restore(runtime, bench.twin)
    assert count_rows(bench.twin, bench.database) == 200


def test_a_backup_that_exists_is_not_made_again(bench: Bench) -> None:
    runtime = bench.runtime()
    ref = fresh_ref(runtime)
    runtime.backups.run(ref, mode="staged")
    before = {key: runtime.stores["primary"].stat(key) for key in keys_in(runtime, "primary", ref)}
    add_rows(bench.source, 10)
    for mode in ("staged", "streamed"):
        assert runtime.backups.run(ref, mode=mode).stored
    now = {key: runtime.stores["primary"].stat(key) for key in keys_in(runtime, "primary", ref)}
    assert now == before


def test_a_restore_killed_between_load_and_publish_is_repeated(bench: Bench) -> None:
    runtime = bench.runtime()
    ref = fresh_ref(runtime)
    runtime.backups.run(ref, mode="staged")
    runtime.verifier.verify(ref)
    plan, target = plan_of(runtime), RestoreTarget(bench.twin)
    fetched = runtime.restores.fetch(plan)
    runtime.restores.load(plan, fetched, target)
    assert bench.database not in databases(bench.twin)
    # The process ends here; another one begins at the step that has not said it is done.
    again = bench.runtime()
    again.restores.load(plan, fetched, target)
    again.restores.compare(plan, target)
    again.restores.publish(plan, fetched, target)
    assert count_rows(bench.twin, bench.database) == 200
    assert again.restores.publish(plan, fetched, target) == ()
    again.restores.compare(plan, target)
    assert count_rows(bench.twin, bench.database) == 200
    assert not [name for name in databases(bench.twin) if name.startswith("restoring_")]
