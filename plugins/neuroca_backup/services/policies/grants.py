"""What the database users of backups and of restores may do, in each database's own words.

One pair of documents for each connection, as sources that share one share its user. Each may be
applied again: it then gives and takes until the user has these rights. None holds a password.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from neuroca_backup import engines, sql
from neuroca_backup.services.policies.document import Document
from neuroca_backup.settings import Role, Settings, SourceSettings

_Sources = Mapping[str, SourceSettings]

_READING = ("+@read", "+@connection", "+@transaction", "-@dangerous", "+info", "+time")
# https://redis.io/docs/latest/operate/oss_and_stack/management/security/acl/
_USAGE = "+memory|usage"
_MILVUS_READING = (
    ("Global", "DescribeCollection"),
    ("Global", "ShowCollections"),
    ("Global", "ListDatabases"),
    ("Collection", "ShowPartitions"),
    ("Collection", "Query"),
    ("Collection", "GetLoadState"),
    # Asking for the state asks for the right to change it.
    ("Collection", "Load"),
    ("Collection", "IndexDetail"),
)


def documents(settings: Settings) -> Iterator[Document]:
    """Yield the grants of every server that a source is on and that has users of its own."""
    by_connection: dict[str, dict[str, SourceSettings]] = {}
    for name, source in settings.sources.items():
        if source.connection is not None:
            by_connection.setdefault(source.connection, {})[name] = source
    for connection, sources in by_connection.items():
        kinds = {source.engine for source in sources.values()}
        for known, end, make in _FAMILIES:
            mine = {name: one for name, one in sources.items() if one.engine in known}
            if not mine or (end == "py" and "milvus" not in kinds):
                continue
            for role, user, word in (
                (Role.WRITER, settings.access.backup_user, "backup"),
                (Role.RESTORER, settings.access.restore_user, "restore"),
            ):
                yield Document(
                    f"databases/{connection}/{word}.{end}",
                    f"the user {user} of {', '.join(mine)}",
                    make(mine, user, word),
                    role,
                )


def _postgresql(sources: _Sources, user: str, word: str) -> str:
    kinds = {source.engine for source in sources.values()}
    names = [f"airflow_{word}"] if kinds == {"airflow_metadata"} else [f"postgresql_{word}"]
    if "postgresql_physical" in kinds and word == "backup":
        names.append("postgresql_physical_backup")
    return "\n".join(sql.read(f"grants/{name}.sql").replace("{user}", user) for name in names)


def _mongodb(sources: _Sources, user: str, word: str) -> str:
    roles: list[dict[str, str]] = []
    privileges: list[dict[str, Any]] = []
    for source in sources.values():
        if source.engine == "mongodb":
            roles.append({"role": "backup" if word == "backup" else "root", "db": "admin"})
            if word == "restore":
                # Repeating an oplog asks for no less.
                privileges = [{"resource": {"anyResource": True}, "actions": ["anyAction"]}]
            continue
        patterns = engines.named(source.engine).options(source.options)["collections"]
        for database in sorted({pattern.partition(".")[0] for pattern in patterns}):
            rights = ("read",) if word == "backup" else ("readWrite", "dbAdmin")
            roles += [{"role": one, "db": database} for one in rights]
    body = json.dumps({"roles": roles, "privileges": privileges}, indent=2)
    return f"""\
// The rights of {user}. Run as an administrator: mongosh ADDRESS this
const admin = db.getSiblingDB("admin");
const role = {body};
const verb = admin.getRole("{user}") ? "updateRole" : "createRole";
admin.runCommand({{[verb]: "{user}", ...role}});
if (!admin.getUser("{user}")) {{
  admin.createUser({{user: "{user}", pwd: passwordPrompt(), roles: ["{user}"]}});
}} else {{
  admin.updateUser("{user}", {{roles: ["{user}"]}});
}}
"""


def _redis(sources: _Sources, user: str, word: str) -> str:
    rules: list[str] = []
    replicated = any(source.engine == "redis_rdb" for source in sources.values())
    if replicated and word == "restore":
        # The whole server is replaced, as a replica of another one.
        return f"ACL SETUSER {user} on ~* &* +@all\n"
    for source in sources.values():
        if source.engine == "redis_rdb":
            rules += ["+ping", "+info", "+sync", "+psync", "+replconf"]
        else:
            keys = engines.named(source.engine).options(source.options)["keys"]
            rules += [f"~{pattern}" for pattern in keys]
            if word == "restore":
                rules += ["~neuroca-restore:*", *_READING, "+@write", _USAGE, "+restore"]
            else:
                rules += [*_READING, _USAGE]
    # `-@dangerous` takes what other sources need, so that it has to come before what gives it.
    taking = [rule for rule in rules if rule == "-@dangerous"]
    groups = [rule for rule in rules if rule.startswith("+@")]
    giving = [rule for rule in rules if rule not in {*taking, *groups}]
    words = dict.fromkeys([*groups, *taking, *giving])
    return f"ACL SETUSER {user} on resetkeys resetchannels -@all {' '.join(words)}\n"


def _milvus(sources: _Sources, user: str, word: str) -> str:  # noqa: ARG001 - as the others
    grants = ""
    role = "admin"
    if word == "backup":
        role = user
        listed = "".join(f"    {pair!r},\n" for pair in _MILVUS_READING).replace("'", '"')
        grants = f"""\
if "{user}" not in client.list_roles():
    client.create_role("{user}")
# A collection that is not loaded needs Release, too, and one without an index CreateIndex and
# DropIndex. With those a thief of the password could take collections out of use.
for kind, privilege in (
{listed}):
    client.grant_privilege("{user}", kind, privilege, "*", db_name="*")
"""
    return f'''\
"""Makes {user} in Milvus. Run with pymilvus: python this http://ADDRESS:19530 ADMINISTRATOR."""

import getpass
import sys

from pymilvus import MilvusClient

client = MilvusClient(sys.argv[1], user=sys.argv[2], password=getpass.getpass("Administrator: "))
if "{user}" not in client.list_users():
    client.create_user("{user}", getpass.getpass("New password of {user}: "))
{grants}client.grant_role("{user}", "{role}")
'''


_FAMILIES = (
    (frozenset({"postgresql", "postgresql_physical", "airflow_metadata"}), "sql", _postgresql),
    (frozenset({"mongodb", "episodic_memory"}), "js", _mongodb),
    (frozenset({"redis_rdb", "working_memory"}), "redis", _redis),
    (frozenset({"milvus", "semantic_memory"}), "py", _milvus),
)
