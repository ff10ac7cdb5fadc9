"""Whether a file can be read as what its name says: YAML, JSON, TOML or .env.

What is wrong is told by its place, never by its value: configuration holds secrets.
"""

from __future__ import annotations

import io
import json
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from neuroca_backup.errors import ConfigurationError
from neuroca_backup.settings.loading import checked
from neuroca_backup.settings.yaml_document import parse as yaml_document

# libyaml is ten times as quick; a build without it has the same grammar.
_Yaml: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_OUR_OWN = "backup.yaml"
_TOML_PLACE = re.compile(r"\(at (line \d+, column \d+|end of document)\)$")


def kind_of(path: str) -> str:
    """Return `YAML`, `JSON`, `TOML` or `.env` by the name of `path`, "" for any other."""
    name = path.rpartition("/")[2].lower()
    if name == ".env" or name.startswith(".env."):
        return ".env"
    return _KINDS.get(name[name.rfind(".") :], "") if "." in name else ""


def problem_of(path: str, content: bytes) -> str:
    """Return why `content` is not what the name of `path` says, "" where it is.

    A `backup.yaml` has to be one that this version takes, too.
    """
    kind = kind_of(path)
    try:
        _READERS[kind](content)
        wrong = _of_settings(path, content) if path.rpartition("/")[2] == _OUR_OWN else ""
    except UnicodeDecodeError as error:
        wrong = f"it is not UTF-8 text (byte {error.start})"
    except json.JSONDecodeError as error:
        wrong = f"it is not JSON (line {error.lineno}, column {error.colno})"
    except tomllib.TOMLDecodeError as error:
        place = _TOML_PLACE.search(str(error))
        wrong = f"it is not TOML ({place[1] if place else 'somewhere'})"
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "somewhere"
        wrong = f"it is not YAML ({where})"
    except yaml.YAMLError:
        wrong = "it is not YAML (it has characters that YAML does not allow)"
    except _UnreadLineError as error:
        wrong = f"it is not .env (line {error.line})"
    except RecursionError:
        wrong = f"it is not {kind} that can be read: it is nested too deeply"
    except ValueError:  # such as a number that is too long to be one
        wrong = f"it is not {kind}: it has a value that cannot be"
    return wrong


class _UnreadLineError(Exception):
    def __init__(self, line: int) -> None:
        super().__init__()
        self.line = line


def _of_settings(path: str, content: bytes) -> str:
    try:
        checked(yaml_document(Path(path), content.decode("utf-8-sig")))
    except ConfigurationError as error:
        # The error itself quotes values; its facts say where the first mistake is.
        place, line = error.facts.get("path"), error.facts.get("line")
        where = f" ({place or 'somewhere'}" + (f", line {line})" if line else ")")
        return f"it is not a backup.yaml that this version takes{where}"
    return ""


def _yaml(content: bytes) -> None:
    # Nodes alone: tags of an application are its own affair, and no alias is multiplied.
    for _ in yaml.compose_all(content, Loader=_Yaml):
        pass


def _toml(content: bytes) -> None:
    tomllib.loads(content.decode())


def _env(content: bytes) -> None:
    from dotenv.parser import parse_stream  # noqa: PLC0415 - only where there is such a file

    for binding in parse_stream(io.StringIO(content.decode())):
        if binding.error:
            # A binding begins with the blank lines before it.
            text = binding.original.string
            blank = text[: len(text) - len(text.lstrip())].count("\n")
            raise _UnreadLineError(binding.original.line + blank)


_KINDS = {".yaml": "YAML", ".yml": "YAML", ".json": "JSON", ".toml": "TOML", ".env": ".env"}
_READERS: Mapping[str, Callable[[bytes], object]] = {
    "YAML": _yaml,
    "JSON": json.loads,
    "TOML": _toml,
    ".env": _env,
}
