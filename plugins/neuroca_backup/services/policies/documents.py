"""All documents of an installation by the path that each is written to, and what it is for."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from neuroca_backup.errors import ConfigurationError, NotFoundError
from neuroca_backup.services.policies import grants, guards, identity
from neuroca_backup.services.policies.document import Document
from neuroca_backup.services.policies.places import (
    WITH_MFA,
    account,
    buckets,
    keys,
    role_arn,
)
from neuroca_backup.settings import Role, Settings

# Everybody may read it: it holds names, never a secret.
_MODE = 0o644


def documents(settings: Settings) -> tuple[Document, ...]:
    """Return every document that `settings` give, in the order in which they are applied.

    Raises:
        ConfigurationError: There are buckets or KMS keys, and no AWS account is named.
    """
    return (*_aws(settings), *grants.documents(settings))


def chosen(
    found: Sequence[Document], *, role: Role | None = None, path: str | None = None
) -> tuple[Document, ...]:
    """Return those documents that are of `role`, or the one at `path`.

    Raises:
        NotFoundError: There is none; lists those there are.
    """
    kept = tuple(
        one for one in found if role in {None, one.role} and (path is None or one.path == path)
    )
    if not kept:
        wanted = path or f"of the role {role}"
        raise NotFoundError(
            f"There is no document {wanted}",
            remedy=f"There are: {', '.join(one.path for one in found) or 'none'}.",
            value=path,
        )
    return kept


def write(found: Sequence[Document], folder: Path) -> None:
    """Write every document below `folder`, in the place of what an earlier run wrote there.

    Raises:
        ConfigurationError: Something cannot be written; names it.
    """
    for one in found:
        path = folder / one.path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
            try:
                with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                    file.write(one.text)
                    os.fchmod(file.fileno(), _MODE)
                Path(name).replace(path)
            finally:
                Path(name).unlink(missing_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"{path} cannot be written: {error.strerror}",
                remedy="Name a directory that you may write to.",
                value=str(path),
            ) from None


def _aws(settings: Settings) -> Iterator[Document]:
    found, named = buckets(settings), keys(settings)
    if not found and not named:
        return
    area, owner = role_arn(settings, Role.WRITER).split(":")[1], account(settings)
    yield _document(
        f"trust/people{WITH_MFA}.json",
        "trust policy of the roles that people assume",
        identity.trust(owner, partition=area),
    )
    for role in Role:
        policy = identity.policy(role, settings)
        if not policy["Statement"]:
            continue
        arn = role_arn(settings, role)
        yield _document(f"iam/{role}.json", f"policy of {arn}", policy, role)
        if role in guards.PEOPLE:
            yield _document(
                f"iam/{role}{WITH_MFA}.json",
                f"policy of {arn}{WITH_MFA}, for people",
                identity.with_mfa(policy),
                role,
            )
    for store, arn in named.items():
        yield _document(
            f"keys/{store}.json", f"key policy of {arn}", guards.key_policy(arn, settings)
        )
    for bucket in found:
        yield _document(
            f"buckets/{bucket.store}.json",
            f"bucket policy of {bucket.name}",
            guards.bucket_policy(bucket, settings),
        )


def _document(
    path: str, purpose: str, body: Mapping[str, Any], role: Role | None = None
) -> Document:
    return Document(path, purpose, f"{json.dumps(body, indent=2)}\n", role)
