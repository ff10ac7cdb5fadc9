"""Finding and reading `backup.yaml`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from neuroca_backup import registry
from neuroca_backup.errors import ConfigurationError
from neuroca_backup.settings.mistakes import Mistake, presentable, refusal, shown
from neuroca_backup.settings.sections import Settings
from neuroca_backup.settings.sentences import mistakes_of, nearest
from neuroca_backup.settings.yaml_document import YamlDocument, read

PATH_VARIABLE = "NEUROCA_BACKUP_CONFIG"
SYSTEM_PATH = Path("/etc/neuroca/backup.yaml")

_PACKAGE = Path(__file__).resolve().parents[1]
_RELATIVE_PATH = Path("config", "backup.yaml")


def default_path() -> Path:
    """Return where `backup.yaml` is looked for when nobody says where.

    That is `NEUROCA_BACKUP_CONFIG`; else `config/backup.yaml` in `AIRFLOW_HOME` or in the
    repository, whichever has one; else `/etc/neuroca/backup.yaml`.
    """
    named = os.environ.get(PATH_VARIABLE)
    if named:
        return Path(named)
    home = os.environ.get("AIRFLOW_HOME")
    candidates = [Path(home) / _RELATIVE_PATH] if home else []
    candidates.append(_repository() / _RELATIVE_PATH)
    return next((path for path in candidates if path.is_file()), SYSTEM_PATH)


def sample_text() -> str:
    """Return the commented sample file: `config/backup.yaml` of the repository or the wheel."""
    packaged = _PACKAGE / "sample" / "backup.yaml"
    path = packaged if packaged.is_file() else _repository() / _RELATIVE_PATH
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(
            f"the sample {path} cannot be read: {error.strerror}",
            remedy="Install neuroca-backup again; the sample is a part of it.",
            file=str(path),
        ) from None


def load(path: Path) -> Settings:
    """Return the settings in the file at `path`.

    Raises:
        ConfigurationError: The file cannot be read or says something wrong. All mistakes are
            listed; the facts `file`, `path`, `line` and `value` are those of the first.
    """
    document = read(
        path,
        absent=f"Run `neuroca-backup configure --config-path {path}` to write a sample there, "
        f"or set {PATH_VARIABLE} to the path of your file.",
    )
    return checked(document)


def checked(document: YamlDocument) -> Settings:
    """Return the settings that `document` holds; raises as `load` does."""
    section = _backup_section(document)
    mistakes = list(_unknown_engines(document, section))
    try:
        settings = Settings.model_validate(section)
    except ValidationError as error:
        mistakes += mistakes_of(error, document)
    else:
        if not mistakes:
            return settings
    raise refusal(document.file, mistakes)


def _repository() -> Path:
    """Return the directory that holds `plugins/`: the repository, or an AIRFLOW_HOME."""
    return _PACKAGE.parents[1]


def _backup_section(document: YamlDocument) -> dict[Any, Any]:
    remedy = "Write everything below one top-level key, `backup:`."
    data = document.data
    if data is None:
        raise refusal(
            document.file,
            [
                Mistake(
                    (),
                    "the file is empty",
                    f"{remedy} Or remove the file, and run "
                    f"`neuroca-backup configure --config-path {document.file}` for a sample.",
                )
            ],
        )
    if not isinstance(data, dict):
        found = shown((), data)
        mistake = Mistake((), f"the file holds {found}, not a section", remedy, line=1)
        raise refusal(document.file, [mistake])
    mistakes = [
        Mistake(
            (str(key),),
            "is not a known top-level key",
            f"Known here: backup. {remedy}",
            line=document.line_of((str(key),)),
            value=presentable((str(key),), value),
        )
        for key, value in data.items()
        if key != "backup"
    ]
    if "backup" not in data:
        mistakes.insert(0, Mistake(("backup",), "is missing", remedy))
    elif not isinstance(data["backup"], dict):
        found = shown((), data["backup"])
        mistakes.append(
            Mistake(
                ("backup",),
                f"{found} is not a section",
                "Write schedule, storage, retention and encryption below it, indented by spaces.",
                line=document.line_of(("backup",)),
                value=presentable((), data["backup"]),
            )
        )
    if mistakes:
        raise refusal(document.file, mistakes)
    section: dict[Any, Any] = data["backup"]
    return section


def _unknown_engines(document: YamlDocument, section: dict[Any, Any]) -> Iterator[Mistake]:
    sources = section.get("sources")
    if not isinstance(sources, dict):
        return
    # By name: the list of an upper layer's files is wanted, and none of them may be imported.
    known = registry.kinds(import_module("neuroca_backup.engines"))
    for name, source in sources.items():
        engine = source.get("engine") if isinstance(source, dict) else None
        if isinstance(engine, str) and engine not in known:
            place = ("backup", "sources", str(name), "engine")
            yield Mistake(
                place,
                f"{shown(place, engine)} is not a known engine",
                nearest(engine, known),
                line=document.line_of(place),
                value=presentable(place, engine),
            )
