"""SQL texts, kept as files so that an editor, a linter and a person can read them as SQL.

They live in `include/sql` of the repository and in `neuroca_backup/sql` of the installed wheel.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path, PurePosixPath

from neuroca_backup.errors import NotFoundError, PermanentError

_HERE = Path(__file__).resolve()
_PLACES = (_HERE.parent / "sql", _HERE.parents[2] / "include" / "sql")


@cache
def read(name: str) -> str:
    """Return the text called `name`, e.g. `catalog/queries/record_backup.sql`.

    Raises:
        NotFoundError: There is no such text; names the path at which it was looked for.
    """
    path = _folder() / _relative(name)
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise _missing(name, path) from None


@cache
def names(folder: str) -> tuple[str, ...]:
    """Return the names, for `read`, of the texts directly within `folder`, sorted.

    Raises:
        NotFoundError: There is no such folder, or it has no text.
    """
    path = _folder() / _relative(folder)
    found = tuple(sorted(f"{folder}/{entry.name}" for entry in path.glob("*.sql")))
    if not found:
        raise _missing(folder, path)
    return found


def _folder() -> Path:
    for place in _PLACES:
        if place.is_dir():
            return place
    raise _missing("", _PLACES[0])


def _relative(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise PermanentError(
            f"{name!r} does not name a text of include/sql",
            remedy="Give a path relative to include/sql.",
            name=name,
        )
    return path


def _missing(name: str, path: Path) -> NotFoundError:
    return NotFoundError(
        f"The SQL text {name!r} is not at {path}",
        remedy="Install neuroca-backup again; this installation is incomplete.",
        name=name,
    )
