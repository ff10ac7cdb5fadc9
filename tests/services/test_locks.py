"""Backups in a bucket with Object Lock: locked when they are made, and held beyond retention."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from neuroca_backup.errors import ConfigurationError
from neuroca_backup.model.identity import Component
from neuroca_backup.services.retention.planning import Fate
from support import buckets, wiring

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from neuroca_backup.model.endpoint import Endpoint
    from neuroca_backup.runtime import Runtime


def wired(
    object_stores: Mapping[str, Endpoint], source: Endpoint, spool: Path, *, locking: bool
) -> Runtime:
    """Return a runtime whose primary is to lock for 30 days and 2 more; its bucket may not."""
    places = wiring.region_places(object_stores)
    url = str(object_stores["us-west-2"].extra["endpoint_url"])
    bucket = buckets.bucket(url, locking=locking)
    lock = {"mode": "governance", "margin": "2d"}
    primary = {**places.storage["primary"], "bucket": bucket, "lock": lock}
    storage = {**places.storage, "primary": primary}
    return wiring.wire(replace(places, storage=storage), postgres=source, spool=spool)


def test_a_backup_is_locked_from_its_first_moment_and_a_hold_outlives_the_lock(
    postgres: Endpoint, object_stores: Mapping[str, Endpoint], tmp_path: Path
) -> None:
    with wiring.scratch_database(postgres, "locked_src", rows=5) as source:
        runtime = wired(object_stores, source, tmp_path / "spool", locking=True)
        ref = wiring.fresh_ref(runtime)
        runtime.backups.run(ref, mode="streamed")
        runtime.verifier.verify(ref)
    store: Any = runtime.stores["primary"]
    found = {key: store.locked_until(key) for key in wiring.keys_in(runtime, "primary", ref)}
    assert found.pop(ref.verification_key) is None
    assert len(found) > 3
    expected = datetime.now(UTC) + timedelta(days=32)
    for key, until in found.items():
        assert abs(until - expected) < timedelta(minutes=5), key
    other: Any = runtime.stores["secondary"]
    assert {other.locked_until(key) for key in wiring.keys_in(runtime, "secondary", ref)} == {None}

    later = datetime.now(UTC) + timedelta(days=31)
    retention = runtime.retention
    retention._clock = lambda: later
    (decision,) = retention.plan(Component.DATABASE, "postgres").decisions
    assert decision.fate is Fate.KEEP
    assert decision.reason.startswith("locked in primary until")

    retention.hold(ref, reason="a trial", until=None, actor="test")
    assert {store.locked_until(key).year for key in found} == {9999}
    assert retention.release(ref, actor="test")
    assert {store.locked_until(key) for key in found} == set(found.values())


def test_nothing_is_dumped_for_a_bucket_that_cannot_lock(
    postgres: Endpoint, object_stores: Mapping[str, Endpoint], tmp_path: Path
) -> None:
    runtime = wired(object_stores, postgres, tmp_path / "spool", locking=False)
    with pytest.raises(ConfigurationError, match="has no Object Lock"):
        wiring.back_up(runtime)
    assert wiring.spool_names(runtime) == []
    left = {one.key.partition("/")[0] for one in runtime.stores["primary"].list()}
    assert left == {"audit"}, "that it failed is all that is written down"
