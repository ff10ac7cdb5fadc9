"""A YAML file as plain data that still knows its lines; stricter than YAML itself.

YAML keeps the last of two equal keys in silence: here that is a mistake.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from neuroca_backup.errors import ConfigurationError
from neuroca_backup.settings.mistakes import Mistake, refusal

Place = tuple[str | int, ...]

_SPACES = "Indent by spaces, two for each level, and quote text that holds any of : # { } [ ] * &."
_TEXT = "tag:yaml.org,2002:str"
_MERGE_KEY = "tag:yaml.org,2002:merge"
_QUOTED_KEY = (
    "Put it in quotes; without them YAML reads numbers, dates, on, off, yes and no as such."
)


@dataclass(frozen=True, slots=True)
class YamlDocument:
    """The data of `file`, and the line (from 1) on which each place in it begins."""

    file: Path
    data: Any
    lines: Mapping[Place, int]

    def line_of(self, place: Sequence[str | int]) -> int | None:
        """Return the line of `place`, or of the nearest place above it that the file has."""
        for length in range(len(place), -1, -1):
            line = self.lines.get(tuple(place[:length]))
            if line is not None:
                return line
        return None


def read(file: Path, *, absent: str, private: bool = False) -> YamlDocument:
    """Read `file`; its data is None where it holds nothing but comments.

    `absent` is the remedy for a missing file. With `private`, a file that its group or others
    may open is refused.

    Raises:
        ConfigurationError: It cannot be read, is not UTF-8 or not YAML, or has a key twice or one
            that is not text.
    """
    return parse(file, _text(file, absent=absent, private=private))


def parse(file: Path, text: str) -> YamlDocument:
    """Return what `text`, the content of `file`, says.

    Raises:
        ConfigurationError: It is not YAML, or has a key twice or one that is not text.
    """
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is None:
            return YamlDocument(file=file, data=None, lines={})
        lines, mistakes = _survey(root)
        if mistakes:
            raise refusal(file, mistakes)
        data = loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        mistake = _syntax(error)
    except (yaml.YAMLError, ValueError) as error:
        # A ValueError is a number or date that looks like one and is none, such as 2026-13-01.
        reason = getattr(error, "reason", None) or "it holds a number or date that cannot be"
        mistake = Mistake(path=(), problem=f"this is not YAML: {reason}", remedy=_SPACES)
    else:
        return YamlDocument(file=file, data=data, lines=lines)
    # Outside of the handlers: the parser's error quotes the file and must not become the context.
    raise refusal(file, [mistake])


def _text(file: Path, *, absent: str, private: bool) -> str:
    try:
        with file.open("rb") as stream:
            mode = stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
            if private and mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise ConfigurationError(
                    f"{file} holds passwords, and its mode {mode:04o} lets others than its owner "
                    "open it",
                    remedy=f"Run `chmod 600 {file}`.",
                    file=str(file),
                    value=f"{mode:04o}",
                )
            return stream.read().decode("utf-8-sig")
    except FileNotFoundError:
        raise _unreadable(file, "does not exist", absent) from None
    except IsADirectoryError:
        raise _unreadable(file, "is a directory", "Name the file within it.") from None
    except PermissionError:
        remedy = f"Let user id {os.geteuid()} read it and enter the directories above it."
        raise _unreadable(file, "may not be read", remedy) from None
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
        raise _unreadable(file, problem, "Check the path and its disk.") from None
    except UnicodeDecodeError as error:
        problem = f"is not UTF-8 text (byte {error.start})"
        raise _unreadable(file, problem, "Save it as UTF-8.") from None


def _unreadable(file: Path, problem: str, remedy: str) -> ConfigurationError:
    return ConfigurationError(
        f"{file} {problem}", remedy=remedy, file=str(file), path="", value=str(file)
    )


def _survey(root: yaml.Node) -> tuple[dict[Place, int], list[Mistake]]:
    """Return the line of every place below `root`, and every key that is repeated or not text.

    A node reached again through an alias is not entered again, so neither a recursive file nor
    one that multiplies its aliases takes more steps than it has nodes.
    """
    lines: dict[Place, int] = {}
    mistakes: list[Mistake] = []
    entered: set[int] = set()
    waiting: list[tuple[Place, yaml.Node]] = [((), root)]
    while waiting:
        place, node = waiting.pop()
        if id(node) in entered:
            continue
        entered.add(id(node))
        lines.setdefault(place, _line(node))
        for below, key, value in _children(place, node):
            if isinstance(node, yaml.MappingNode) and key.tag != _TEXT:
                mistakes.append(
                    Mistake(place, "a key below it is not text", _QUOTED_KEY, line=_line(key))
                )
            elif below in lines:
                problem = f"this key stands here twice; the first is on line {lines[below]}"
                remedy = "Keep one of the two."
                mistakes.append(Mistake(below, problem, remedy, line=_line(key)))
            lines.setdefault(below, _line(key))
            waiting.append((below, value))
    return lines, mistakes


def _children(place: Place, node: yaml.Node) -> Iterator[tuple[Place, yaml.Node, yaml.Node]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.tag != _MERGE_KEY:
                yield (*place, str(key.value)), key, value
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield (*place, index), value, value


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _syntax(error: yaml.MarkedYAMLError) -> Mistake:
    # Only the parser's words are used, never its excerpt of the line, which may hold a secret.
    problem = error.problem or error.context or "it cannot be parsed"
    mark = error.problem_mark or error.context_mark
    remedy = "Replace tabs by spaces: YAML is indented by spaces." if "\\t" in problem else _SPACES
    line = None if mark is None else mark.line + 1
    return Mistake((), f"this is not YAML: {problem}", remedy, line=line)
