from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from neuroca_backup import sql
from neuroca_backup.errors import NotFoundError, PermanentError

ROOT = Path(sql.__file__).resolve().parents[2]
TEXTS = sorted(path.relative_to(ROOT / "include/sql") for path in ROOT.glob("include/sql/**/*.sql"))


def test_a_text_is_the_file_of_the_repository() -> None:
    name = "catalog/queries/record_backup.sql"
    assert sql.read(name) == (ROOT / "include/sql" / name).read_text(encoding="utf-8")


def test_a_text_is_read_once() -> None:
    assert sql.read("catalog/queries/backups.sql") is sql.read("catalog/queries/backups.sql")


def test_a_missing_text_is_an_error_that_names_it() -> None:
    with pytest.raises(NotFoundError, match=r"'catalog/queries/nothing\.sql'"):
        sql.read("catalog/queries/nothing.sql")


def test_a_missing_folder_is_an_error_that_names_it() -> None:
    with pytest.raises(NotFoundError, match="'catalog/nothing'"):
        sql.names("catalog/nothing")


@pytest.mark.parametrize("name", ["../../pyproject.toml", "/etc/passwd", "catalog/../../x.sql"])
def test_a_name_that_leaves_the_folder_is_refused(name: str) -> None:
    with pytest.raises(PermanentError, match="does not name a text"):
        sql.read(name)


def test_the_names_of_a_folder_can_be_read_and_are_sorted() -> None:
    names = sql.names("catalog/migrations")
    assert names[0] == "catalog/migrations/0001_initial.sql"
    assert list(names) == sorted(names)
    assert all(sql.read(name) for name in names)


def test_an_installation_without_the_repository_reads_its_own_texts(tmp_path: Path) -> None:
    """The layout of the wheel: the texts are in `sql/` beside the module `sql.py`."""
    package = tmp_path / "neuroca_backup"
    package.mkdir()
    for module in ("__init__.py", "sql.py", "errors.py"):
        shutil.copy(ROOT / "plugins/neuroca_backup" / module, package)
    shutil.copytree(ROOT / "include/sql", package / "sql")
    program = (
        "from neuroca_backup import sql; print(sql.__file__, sql.names('catalog/migrations')[0]);"
        "print(sql.read('catalog/queries/events.sql'), end='')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    first, _, rest = done.stdout.partition("\n")
    assert first == f"{package / 'sql.py'} catalog/migrations/0001_initial.sql"
    assert rest == sql.read("catalog/queries/events.sql")


@pytest.mark.parametrize("path", [path for path in TEXTS if path.parts[0] == "catalog"], ids=str)
def test_every_text_of_the_catalog_begins_by_saying_what_it_is_for(path: Path) -> None:
    assert re.match(r"-- [A-Z][^\n]{15,}\n", sql.read(str(path)))


def test_there_is_no_python_among_the_sql() -> None:
    assert TEXTS
    assert list((ROOT / "include").glob("**/*.py")) == []
