"""Run one DAG to its end in this process and write what it left as JSON.

Arguments: the dags folder, the DAG id, the run's conf as JSON, the answer's path. With the
variable NEUROCA_TEST_ENGINES the engines of the tests are known, too; tasks whose ids match
NEUROCA_TEST_SUCCEEDS are not run, and succeed.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any


def named(one: Any) -> str:
    """Return the task's id, with its index where it is mapped."""
    return one.task_id if one.map_index < 0 else f"{one.task_id}[{one.map_index}]"


def file_of(folder: Path, dag_id: str) -> Path:
    """Return the file of our own DAG `dag_id`: the others need not be parsed to run it."""
    names = (f"{dag_id}.py", f"{dag_id.partition('_')[0]}.py")
    return next((folder / name for name in names if (folder / name).is_file()), folder)


def main(folder: str, dag_id: str, conf: str, answer: str) -> None:
    from airflow.dag_processing.dagbag import DagBag  # noqa: PLC0415 - Airflow only where it runs
    from airflow.models.asset import AssetEvent, AssetModel  # noqa: PLC0415 - as above
    from airflow.models.xcom import XComModel  # noqa: PLC0415 - as above
    from airflow.utils.session import create_session  # noqa: PLC0415 - as above
    from sqlalchemy import select  # noqa: PLC0415 - as above

    if os.environ.get("NEUROCA_TEST_ENGINES"):
        sys.path.append(str(Path(__file__).resolve().parents[1]))
        from support.registering import register  # noqa: PLC0415 - only where it is asked for

        register()
    bag = DagBag(str(file_of(Path(folder), dag_id)))
    if bag.import_errors:
        sys.exit(f"import errors: {bag.import_errors}")
    run = bag.dags[dag_id].test(
        run_conf=json.loads(conf), mark_success_pattern=os.environ.get("NEUROCA_TEST_SUCCEEDS")
    )
    with create_session() as session:
        instances = run.get_task_instances(session=session)
        xcoms = session.scalars(select(XComModel).where(XComModel.run_id == run.run_id))
        events = session.execute(
            select(AssetModel.uri, AssetEvent.extra)
            .join(AssetModel, AssetModel.id == AssetEvent.asset_id)
            .where(AssetEvent.source_run_id == run.run_id)
        )
        found = {
            "state": str(run.state),
            "tasks": {named(ti): str(ti.state) for ti in instances},
            "labels": {named(ti): ti.rendered_map_index for ti in instances},
            "tries": {named(ti): ti.try_number for ti in instances},
            "xcoms": {f"{named(x)}/{x.key}": x.value for x in xcoms},
            "events": [{"uri": uri, "extra": extra} for uri, extra in events],
        }
    Path(answer).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
