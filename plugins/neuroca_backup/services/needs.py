"""Which stored backups and objects others rely on: what nobody may delete, however old it is.

A backup needs the one it continues, and every one that holds bytes of its members. A needed
backup stays as long as one that needs it, whatever its own expiry says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from neuroca_backup.model.identity import BackupRef
from neuroca_backup.model.manifest import Manifest


def origins(manifest: Manifest) -> frozenset[str]:
    """Return the ids of the earlier backups that hold bytes of this one's members."""
    return frozenset(
        member.origin.backup_id for member in manifest.members if member.origin is not None
    )


def needed_by(manifests: Iterable[Manifest]) -> Mapping[str, frozenset[str]]:
    """Return, for every backup that another one needs, the ids of all that need it.

    Also those that need it only through others, as the end of a chain needs its beginning. Give
    the manifests of every backup that is to stay, from every store: what is missing here needs
    nothing, so a manifest that could not be read must stop whoever wants to delete.
    """
    return transitively({manifest.backup_id: needs_of(manifest) for manifest in manifests})


def needs_of(manifest: Manifest) -> frozenset[str]:
    """Return the ids of the earlier backups that this one names: its parent, and all origins."""
    return origins(manifest) | ({manifest.parent} if manifest.parent else set())


def transitively(needs: Mapping[str, frozenset[str]]) -> Mapping[str, frozenset[str]]:
    """Return, from what each backup names, what `needed_by` does."""
    needed: dict[str, set[str]] = {}
    for backup_id in needs:
        ahead: list[str] = [backup_id]
        seen: set[str] = set()
        while ahead:
            for earlier in needs.get(ahead.pop(), frozenset()) - seen:
                seen.add(earlier)
                ahead.append(earlier)
                needed.setdefault(earlier, set()).add(backup_id)
    return {backup_id: frozenset(by) for backup_id, by in needed.items()}


def objects(manifest: Manifest) -> Iterator[str]:
    """Yield the keys of all objects that restoring this backup by itself reads, some repeatedly.

    A needed backup may be reduced to what those that need it name: its other members are no loss.
    """
    yield manifest.ref.manifest_key
    yield manifest.ref.keys_key(manifest.attempt)
    for member in manifest.members:
        yield manifest.key_of(member)
        if member.origin is not None:
            yield manifest.keys_of(member)


def holders(manifest: Manifest) -> frozenset[BackupRef]:
    """Return the earlier backups that hold bytes of this one's members, as references."""
    return frozenset(BackupRef(found, manifest.component) for found in origins(manifest))
