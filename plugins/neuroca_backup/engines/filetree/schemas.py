"""Holding YAML and JSON to the JSON Schemas that a source names for them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from neuroca_backup.engines.filetree.parsing import kind_of
from neuroca_backup.trees.walking import matching

_TIMESTAMP = "tag:yaml.org,2002:timestamp"


class _Loader(yaml.SafeLoader):
    """Plain data as JSON knows it: what looks like a date stays text."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - the name and form that PyYAML asks for
        first: [(tag, expression) for tag, expression in found if tag != _TIMESTAMP]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


@dataclass(frozen=True, slots=True)
class Schema:
    """A schema for the paths that `matches` accepts; `absent` or `problem` say why it is none."""

    file: str
    matches: Callable[[str], bool]
    validator: Any = None
    absent: bool = False
    problem: str = ""

    def problem_of(self, path: str, content: bytes) -> str:
        """Return where `content`, which can be parsed, breaks the schema, "" where it keeps it."""
        from referencing.exceptions import Unresolvable  # noqa: PLC0415 - see `read`

        try:
            return next(filter(None, map(self._broken_by, _documents(path, content))), "")
        except yaml.YAMLError:
            wrong = f"it has tags of its own, so {self.file} cannot tell"
        except Unresolvable:
            wrong = f"{self.file} refers to another schema, which it does not hold itself"
        except (ValueError, RecursionError):
            wrong = f"it has a value that cannot be, so {self.file} cannot tell"
        return wrong

    def _broken_by(self, document: Any) -> str:
        if not _is_plain(document):
            return f"it has a key that is no text, so {self.file} cannot tell"
        error = next(self.validator.iter_errors(document), None)
        if error is None:
            return ""
        # The error's own words quote the value.
        return f"it breaks `{error.validator}` of {self.file} at {error.json_path}"


def read(named: Mapping[str, str], *, base: Path | None) -> list[Schema]:
    """Return the schemas in the files that `named` gives by pattern, whatever is wrong with them.

    Below `base`, a restored copy, each is looked for first; then where its path says.
    """
    return [_read(pattern, file, base=base) for pattern, file in named.items()]


def _read(pattern: str, file: str, *, base: Path | None) -> Schema:
    # It takes a tenth of a second to import, and most sources name no schema.
    from jsonschema.exceptions import SchemaError  # noqa: PLC0415 - as said
    from jsonschema.validators import validator_for  # noqa: PLC0415 - as said
    from jsonschema_specifications import REGISTRY  # noqa: PLC0415 - as said

    matches = matching((pattern,))
    restored = base / file.lstrip("/") if base is not None else None
    path = restored if restored is not None and restored.is_file() else Path(file)
    try:
        schema = json.loads(path.read_bytes())
        if not isinstance(schema, dict | bool):
            return Schema(file, matches, problem="it is no JSON Schema: $ is wrong")
        known = validator_for(schema)
        known.check_schema(schema)
    except FileNotFoundError:
        return Schema(file, matches, absent=True)
    except OSError as error:
        return Schema(file, matches, problem=f"it cannot be read: {error.strerror}")
    except (ValueError, RecursionError):
        return Schema(file, matches, problem="it is not JSON")
    except SchemaError as error:
        return Schema(file, matches, problem=f"it is no JSON Schema: {error.json_path} is wrong")
    # With this registry nothing is ever fetched from the network.
    return Schema(file, matches, validator=known(schema, registry=REGISTRY))


def _documents(path: str, content: bytes) -> Iterator[Any]:
    if kind_of(path) == "YAML":
        yield from yaml.load_all(content, Loader=_Loader)
    else:
        yield json.loads(content)


def _is_plain(data: Any) -> bool:
    """Return whether every key is text; what aliases lead to is looked at once."""
    seen: set[int] = set()
    waiting = [data]
    while waiting:
        one = waiting.pop()
        if not isinstance(one, dict | list) or id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, dict):
            if not all(isinstance(key, str) for key in one):
                return False
            waiting += one.values()
        else:
            waiting += one
    return True
