"""What pydantic found wrong, as sentences for the person who edits the file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from neuroca_backup.settings.mistakes import Mistake, dotted, presentable, shown
from neuroca_backup.settings.sections import Settings
from neuroca_backup.settings.yaml_document import YamlDocument

_Loc = tuple[str | int, ...]

_SECTION = "Write `key: value` lines below it, indented by two more spaces, or remove it."
_QUOTED = "Put the value in quotes; without them YAML reads numbers, dates, yes and no as such."
# Errors whose context lists the words that are known, and where in it they are.
_CHOICES = {"literal_error": "expected", "enum": "expected", "union_tag_invalid": "expected_tags"}
_QUOTED_WORD = re.compile(r"'([^']+)'")
# pydantic's name of an error: the predicate, and the remedy. Braces are filled from its context.
_SENTENCES = {
    "model_type": ("is not a section", _SECTION),
    "model_attributes_type": ("is not a section", _SECTION),
    "dict_type": ("is not a section", _SECTION),
    "too_short": ("is empty", "Name at least one, or remove the section to get the default."),
    "tuple_type": ("is not a list", "Write each entry on a line of its own, after `- `."),
    "string_type": ("is not text", _QUOTED),
    "path_type": ("is not a path", _QUOTED),
    "string_too_short": ("is too short", "Write at least {min_length} characters."),
    "string_pattern_mismatch": ("has the wrong form", "Write it as {pattern}."),
    "int_type": ("is not a whole number", "Write digits without quotes."),
    "bool_type": ("is neither true nor false", "Write true or false without quotes."),
    # Ours, raised in sections.py and values.py.
    "refused": ("{problem}", "{remedy}"),
    "absent": ("{problem}", "{remedy}"),
    "greater_than_equal": ("is too small", "Write {ge} or more."),
    "less_than_equal": ("is too large", "Write {le} or less."),
}


def mistakes_of(error: ValidationError, document: YamlDocument) -> Iterator[Mistake]:
    """Yield a mistake for everything that `error` found in the `backup` section of `document`."""
    for details in error.errors(include_url=False):
        mistake = _explain(details)
        place = ("backup", *mistake.path)
        value = presentable(place, mistake.value)
        yield replace(mistake, path=place, line=document.line_of(place), value=value)


def nearest(word: str, known: Sequence[str]) -> str:
    """Return a sentence that offers the known word nearest to `word`, and all of them."""
    close = get_close_matches(word.lower(), known, n=1)
    question = f"Did you mean `{close[0]}`? " if close else ""
    return f"{question}Known here: {', '.join(known)}."


def _explain(details: ErrorDetails) -> Mistake:
    """Return the mistake, its path beginning below `backup`, that pydantic calls `details`."""
    kind, loc, value = details["type"], details["loc"], details["input"]
    context = details.get("ctx", {})
    path = _yaml_path(loc)
    if kind in {"union_tag_not_found", "union_tag_invalid"}:
        path, value = (*path, "type"), context.get("tag")
    found = shown(("backup", *path), value)
    if kind in {"missing", "union_tag_not_found"}:
        parent = dotted(("backup", *path[:-1]))
        return Mistake(path, "is missing", f"Write `{path[-1]}:` below {parent}.")
    if kind == "extra_forbidden":
        known = list(_section_at(loc[:-1]).model_fields)
        remedy = nearest(str(path[-1]), known)
        return Mistake(path, "is not a known setting", remedy, value=value)
    if value is None and kind != "absent":
        return Mistake(path, "has no value", "Write one, or remove the line.")
    if kind in _CHOICES:
        known = _QUOTED_WORD.findall(context[_CHOICES[kind]])
        return Mistake(path, f"{found} is not known", nearest(str(value), known), value=value)
    if kind not in _SENTENCES:
        return Mistake(path, f"{found} is not valid", f"{details['msg']}.", value=value)
    problem, remedy = _SENTENCES[kind]
    subject = "" if kind == "absent" else f"{found} "
    remedy = f"{remedy.format_map(context).rstrip('.')}."
    return Mistake(path, f"{subject}{problem.format_map(context)}", remedy, value=value)


def _yaml_path(loc: _Loc) -> _Loc:
    """Return `loc` without what pydantic adds: the chosen type of a store, and `[key]`."""
    if loc[:1] == ("storage",) and loc[2:3] in {("s3",), ("local",)}:
        loc = (*loc[:2], *loc[3:])
    return tuple(part for part in loc if part != "[key]")


def _section_at(loc: _Loc) -> type[BaseModel]:
    """Return the model of the section at `loc`, a path as pydantic gives it."""
    section: type[BaseModel] = Settings
    parts = iter(loc)
    for part in parts:
        if isinstance(part, int):
            continue  # the number of an entry in a list
        annotation = section.model_fields[str(part)].annotation
        choices = list(_models_in(annotation))
        if get_origin(annotation) is dict:
            next(parts)  # a name of the user's own
        if len(choices) > 1:
            tag = next(parts)
            choices = [c for c in choices if tag in get_args(c.model_fields["type"].annotation)]
        section = choices[0]
    return section


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)
