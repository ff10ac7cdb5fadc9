"""Objects in an archive: on S3 they are there, are not readable, and come back when asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from neuroca_backup.errors import ArchivedError, ConfigurationError
from neuroca_backup.model.retrieval import RetrievalTier
from neuroca_backup.stores import Archiving
from support import buckets

if TYPE_CHECKING:
    from collections.abc import Iterator

    from neuroca_backup.stores.s3 import S3Store


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with buckets.emulator() as found:
        yield found


@pytest.fixture
def store(url: str) -> S3Store:
    return buckets.store(url)


def put_in(store: S3Store, url: str, key: str, storage_class: str) -> None:
    buckets.client(url).put_object(
        **buckets.address(store, key), Body=b"old", StorageClass=storage_class
    )


@pytest.mark.parametrize("storage_class", ["GLACIER", "DEEP_ARCHIVE"])
def test_an_archived_object_is_readable_after_its_retrieval(
    store: S3Store, url: str, storage_class: str
) -> None:
    buckets.retrievals_take(url, 3)
    put_in(store, url, "member", storage_class)

    found = store.stat("member")
    assert (found.storage_class, found.size) == (storage_class, 3)
    assert (found.readable, found.retrieving) == (False, False)
    assert [one.readable for one in store.list()] == [False]
    with pytest.raises(ArchivedError, match="wait-for-retrieval"):
        store.get("member")

    asked = store.retrieve("member", tier=RetrievalTier.STANDARD, days=2)
    assert (asked.readable, asked.retrieving) == (False, True)
    again = store.retrieve("member", tier=RetrievalTier.STANDARD, days=2)
    assert (again.readable, again.retrieving) == (False, True)

    for _ in range(4):
        found = store.stat("member")
    assert (found.readable, found.retrieving) == (True, False)
    assert found.readable_until is not None
    assert store.get("member") == b"old"


@pytest.mark.parametrize("storage_class", ["STANDARD", "STANDARD_IA", "GLACIER_IR"])
def test_what_reads_at_once_is_never_retrieved(
    store: S3Store, url: str, storage_class: str
) -> None:
    put_in(store, url, "member", storage_class)
    found = store.retrieve("member", tier=RetrievalTier.BULK, days=1)
    assert (found.storage_class, found.readable) == (storage_class, True)
    assert store.get("member") == b"old"


def test_a_tier_that_the_archive_lacks_is_refused(store: S3Store, url: str) -> None:
    put_in(store, url, "member", "DEEP_ARCHIVE")
    with pytest.raises(ConfigurationError, match="no retrieval tier 'expedited'"):
        store.retrieve("member", tier=RetrievalTier.EXPEDITED, days=1)
    assert isinstance(store, Archiving)
    assert not store.stat("member").retrieving
