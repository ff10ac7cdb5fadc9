"""The roles of least privilege."""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """Who acts on backups. No role may both read what is backed up and delete it.

    `writer` dumps and uploads, `replicator` copies between stores, `verifier` reads back,
    `restorer` restores, `retention` deletes, `rotator` wraps keys anew, `auditor` looks.
    """

    WRITER = "writer"
    REPLICATOR = "replicator"
    VERIFIER = "verifier"
    RESTORER = "restorer"
    RETENTION = "retention"
    ROTATOR = "rotator"
    AUDITOR = "auditor"
