"""Dumping what is listed, or only its fingerprint."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from datetime import UTC, datetime

from neuroca_backup.engines import Sink
from neuroca_backup.engines.filetree import listing
from neuroca_backup.engines.filetree.examine import Inspection
from neuroca_backup.engines.filetree.listing import ROOT
from neuroca_backup.errors import ConfigurationError
from neuroca_backup.model.endpoint import FILES, Endpoint
from neuroca_backup.model.manifest import Dump
from neuroca_backup.trees import dumping
from neuroca_backup.trees.totals import Remarks
from neuroca_backup.trees.walking import Found, matching, walk


def system_version(endpoint: Endpoint) -> str:
    """Return the kernel's version, after seeing that `endpoint` is this machine."""
    if endpoint.kind != FILES:
        raise ConfigurationError(
            f"{endpoint.label} is a server, and a filetree source is files of this machine",
            remedy="Remove `connection` from the source, or name a directory as the target.",
            value=endpoint.label,
        )
    return platform.release()


def dump(endpoint: Endpoint, sink: Sink, options: listing.Options) -> Dump:
    """Write everything that is listed; see the protocol."""
    version = system_version(endpoint)
    moment = datetime.now(UTC)
    remarks = Remarks("/")
    inspection = Inspection(options.schemas)
    totals = dumping.dump(
        _found(options, remarks),
        sink,
        remarks=remarks,
        each=inspection.entry,
        seconds=options.stable_seconds,
    )
    return Dump(
        server_version=version,
        tools={"python": platform.python_version()},
        consistency={"time": moment.isoformat()},
        facts={
            **totals.facts(),
            "listed": {
                section: [item.model_dump() for item in items]
                for section, items in options.listed().items()
                if items
            },
            "exclude": list(options.exclude),
            "schemas": dict(options.schemas),
            **inspection.facts(),
        },
        notes=(
            *remarks.sentences(),
            *(f"Not sound in the source: {problem}" for problem in inspection.problems()),
        ),
    )


def fingerprint(endpoint: Endpoint, options: listing.Options) -> str:
    """Return what `dump` would put into `facts["fingerprint"]` now."""
    system_version(endpoint)
    remarks = Remarks("/")
    return dumping.fingerprint(
        _found(options, remarks), remarks=remarks, seconds=options.stable_seconds
    )


def _found(options: listing.Options, remarks: Remarks) -> Iterator[Found]:
    return walk(ROOT, listing.tops(options), remarks=remarks, excluded=matching(options.exclude))
