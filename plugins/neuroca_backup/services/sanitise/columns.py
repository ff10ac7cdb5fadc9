"""What can be done to a column of PostgreSQL by its type, as SQL expressions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from neuroca_backup.errors import PermanentError
from neuroca_backup.settings import RuleSettings

_TEXTS = frozenset({"text", "character varying", "character", "citext"})
_JSON = frozenset({"json", "jsonb"})
_NUMBERS: Mapping[str, int] = {"integer": 31, "bigint": 53, "numeric": 53}  # bits
# How many characters a replacement needs so that two of them are not alike.
_ROOM: Mapping[str, int] = {"hash": 16, "name": 30, "email": 48, "phone": 19, "text": 16}


@dataclass(frozen=True, slots=True)
class Column:
    """A column: `table` as SQL writes it, `name` "" for the whole table, `length` in characters."""

    table: str
    name: str
    type: str
    length: int | None
    not_null: bool


def refuse(column: Column, rule: RuleSettings, facts: Mapping[str, Any]) -> None:
    """Raise `PermanentError` where the table does not allow what `rule` says.

    `facts` is the row of `include/sql/sanitise/column.sql`.
    """
    if facts["relkind"] not in {"r", "p"}:
        raise _impossible(rule, "is not a table that has rows of its own", "Name that table.")
    if not column.name:
        return
    if facts["has_rules"]:
        raise _impossible(
            rule, "has rewrite rules, which decide what an UPDATE does", "Drop them from the table."
        )
    if facts["triggers"]:
        raise _impossible(
            rule,
            f"has triggers that always fire ({', '.join(facts['triggers'])}), and what they would "
            "write is personal",
            "Let them fire at the origin only (ENABLE TRIGGER).",
        )
    if facts["generated"] or facts["identity"]:
        raise _impossible(
            rule, "is computed by the server", "Name the columns that it is computed from."
        )
    if rule.action == "null" and column.not_null and not rule.path:
        raise _impossible(rule, "may not be null", "Write `hash`, `fake` or `drop`.")
    if rule.path and column.type not in _JSON:
        raise _impossible(rule, f"is {column.type}, not JSON", "Leave `field` out.")
    if rule.action in {"hash", "fake"} and not rule.path:
        _refuse_type(column, rule)


def _refuse_type(column: Column, rule: RuleSettings) -> None:
    fits = _TEXTS | _JSON
    if rule.action == "hash":
        fits |= {*_NUMBERS, "uuid", "bytea"}
    if column.type not in fits:
        raise _impossible(
            rule,
            f"is {column.type}, to which {rule.action!r} cannot be done",
            "Write `null` or `drop`.",
        )
    room = _ROOM[rule.kind or "hash"]
    if column.length is not None and column.type in _TEXTS and column.length < room:
        raise _impossible(
            rule,
            f"has room for {column.length} characters, and a replacement needs {room}",
            "Write `null` or `drop`.",
        )


def _impossible(rule: RuleSettings, problem: str, remedy: str) -> PermanentError:
    return PermanentError(
        f"{rule.place} {problem}",
        remedy=f"{remedy} The rule is in `sanitise`; nothing was changed.",
        place=rule.place,
    )


def searchable(column: Column) -> bool:
    """Return whether the text of a value tells it from others wherever it stands."""
    return bool(column.name) and (
        column.type in _TEXTS | _JSON | _NUMBERS.keys() | {"uuid", "bytea", "inet", "cidr"}
    )


def text_of(column: Column, rule: RuleSettings) -> sql.Composable:
    """Return the expression of the value at the place of `rule`, as text; NULL for none."""
    name = sql.Identifier(column.name)
    if rule.path:
        return sql.SQL("({} #>> {})").format(name, _path(rule))
    return sql.SQL("{}::text").format(name)


def assignments(rules: Sequence[tuple[Column, RuleSettings]]) -> list[sql.Composable]:
    """Return what stands after SET: one entry a column, whatever the number of its rules."""
    made: dict[str, sql.Composable] = {}
    types: dict[str, str] = {}
    for column, rule in rules:
        if rule.action == "drop" and not rule.path:
            continue
        before = made.get(column.name)
        if before is None and rule.path:
            before = sql.SQL("{}::jsonb").format(sql.Identifier(column.name))
        made[column.name] = _at_path(column, rule, before) if before else _whole(column, rule)
        types[column.name] = column.type
    return [
        sql.SQL("{} = ({})::{}").format(
            sql.Identifier(name),
            expression,
            sql.SQL(types[name]),  # from the server's own catalog
        )
        for name, expression in made.items()
    ]


def _whole(column: Column, rule: RuleSettings) -> sql.Composable:
    name = sql.Identifier(column.name)
    if rule.action == "null":
        return sql.SQL("NULL")
    if column.type == "bytea":
        return sql.SQL("pg_temp.neuroca_digest({})").format(name)
    if column.type == "uuid":
        return sql.SQL("left(pg_temp.neuroca_hex({}::text), 32)").format(name)
    if column.type in _NUMBERS:
        bits = sql.Literal(_NUMBERS[column.type])
        return sql.SQL("pg_temp.neuroca_number({}::text, {})").format(name, bits)
    made = _masked(sql.SQL("{}::text").format(name), rule)
    if column.type in _JSON:
        return sql.SQL("to_jsonb({})").format(made)
    return sql.SQL("left({}, {})").format(made, column.length) if column.length else made


def _at_path(column: Column, rule: RuleSettings, before: sql.Composable) -> sql.Composable:
    path = _path(rule)
    if rule.action == "drop":
        return sql.SQL("({} #- {})").format(before, path)
    value = text_of(column, rule)
    put = (
        sql.SQL("'null'::jsonb")
        if rule.action == "null"
        else sql.SQL("to_jsonb({})").format(_masked(value, rule))
    )
    return sql.SQL("CASE WHEN {} IS NULL THEN {} ELSE jsonb_set({}, {}, {}, false) END").format(
        value, before, before, path, put
    )


def _masked(value: sql.Composable, rule: RuleSettings) -> sql.Composable:
    if rule.action == "hash":
        return sql.SQL("pg_temp.neuroca_hex({})").format(value)
    return sql.SQL("pg_temp.neuroca_fake({}, {})").format(value, sql.Literal(rule.kind))


def _path(rule: RuleSettings) -> sql.Composable:
    return sql.SQL("{}::text[]").format(sql.Literal(list(rule.path)))
