"""Users and roles: put in place one by one, never those we work as.

Both are documents of `admin`, with passwords as salted hashes:
https://www.mongodb.com/docs/manual/reference/system-users-collection/
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from neuroca_backup.engines.mongodb import layout

if TYPE_CHECKING:
    from neuroca_backup.mongodb_session import Client


def publish(client: Client, staged: str, into: str, *, replace: bool) -> list[str]:
    """Copy accounts from the staged collection of `admin` into `into`; return notes.

    An account that exists stays, unless `replace`; ours, and the roles it has, always stay.
    """
    status = client.admin.command("connectionStatus")["authInfo"]
    word = "authenticatedUsers" if into == layout.USERS else "authenticatedUserRoles"
    name = "user" if into == layout.USERS else "role"
    ours = {f"{one['db']}.{one[name]}" for one in status[word]}
    made, kept, replaced = list[str](), list[str](), list[str]()
    target = client.admin[into]
    for account in client.admin[staged].find():
        key: Any = account["_id"]
        there = target.find_one({"_id": key})
        if there == account:
            continue
        if there is None:
            target.insert_one(account)
            made.append(key)
        elif replace and key not in ours:
            # An account is known by its UUID to sessions that are open.
            target.replace_one({"_id": key}, account)
            replaced.append(key)
        else:
            kept.append(key)
    what = "Users" if into == layout.USERS else "Roles"
    notes = {
        f"{what} created": made,
        f"{what} replaced": replaced,
        f"{what} left as they were": kept,
    }
    return [f"{words}: {', '.join(names)}" for words, names in notes.items() if names]
