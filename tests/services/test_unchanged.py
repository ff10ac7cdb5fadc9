"""A source that has not changed is not backed up again, and the look at it is remembered."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from neuroca_backup.errors import AccessDeniedError, DamagedError, StoreUnavailableError
from neuroca_backup.model import document
from neuroca_backup.model.identity import BackupRef, Component
from neuroca_backup.services import unchanged
from neuroca_backup.services.backup import BackupType
from neuroca_backup.services.inventory import Inventory
from support.files_runs import FilesBench
from support.registering import register
from support.wiring import BOTH, spool_names


@pytest.fixture(params=BOTH)
def bench(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> FilesBench:
    """A configuration of two files that has a verified backup."""
    register(monkeypatch)
    made = FilesBench(tmp_path, mode=request.param)
    (made.etc / "app.yaml").write_text("answer: 42\n")
    (made.etc / "empty").touch()
    return made


@pytest.fixture
def staged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FilesBench:
    """The same in one mode, where the mode makes no difference."""
    register(monkeypatch)
    made = FilesBench(tmp_path)
    (made.etc / "app.yaml").write_text("answer: 42\n")
    return made


def test_unchanged_content_makes_no_backup_and_renews_the_last_check_in_every_store(
    bench: FilesBench,
) -> None:
    first = bench.back_up()
    os.utime(bench.etc / "app.yaml", (1, 1))  # times are no content
    before = datetime.now(UTC)

    second = bench.back_up()

    assert second.unchanged
    assert second.backup_id == first.backup_id
    assert (second.members, second.size) == (first.members, first.size)
    (only,) = bench.listed()
    assert only.ref.backup_id == first.backup_id
    assert set(only.checks) == {"primary", "secondary"}
    assert only.checked_at is not None
    assert before <= only.checked_at <= datetime.now(UTC)
    assert only.current_at == only.checked_at, "the moment of which the RPO may speak"
    assert only.manifest is not None
    assert only.manifest.dump.consistent_at < only.checked_at
    assert spool_names(bench.runtime) == []


def test_a_later_look_replaces_the_earlier_one(staged: FilesBench) -> None:
    staged.back_up()
    staged.back_up()
    (earlier,) = staged.listed()

    staged.back_up()

    (later,) = staged.listed()
    assert earlier.checked_at is not None
    assert later.checked_at is not None
    assert later.checked_at > earlier.checked_at


def test_a_change_makes_a_backup_and_only_the_newest_may_stand(bench: FilesBench) -> None:
    bench.back_up()
    (bench.etc / "app.yaml").write_text("answer: 43\n")
    assert not bench.back_up().unchanged

    (bench.etc / "app.yaml").write_text("answer: 42\n")  # as in the first backup

    assert not bench.back_up().unchanged, "a restore of the newest would not bring it back"
    assert len(bench.listed()) == 3


def test_a_full_backup_that_is_asked_for_is_always_made(bench: FilesBench) -> None:
    bench.back_up()

    assert not bench.back_up(backup_type=BackupType.FULL).unchanged
    assert len(bench.listed()) == 2


def test_a_backup_older_than_full_every_does_not_stand(staged: FilesBench) -> None:
    ticket = staged.back_up()
    subject = staged.runtime.subject("configuration")
    assert staged.back_up().unchanged

    now = datetime.now(UTC) + subject.full_every + timedelta(minutes=1)
    found = unchanged.newest(
        Inventory(staged.runtime.stores),
        staged.ref("configuration"),
        engine=subject.kind,
        full_every=subject.full_every,
        now=now,
    )

    assert found is None
    assert ticket.backup_id


def test_a_backup_that_was_not_verified_or_is_damaged_does_not_stand(staged: FilesBench) -> None:
    staged.back_up(verify=False)
    assert not staged.back_up().unchanged

    newest = staged.listed()[0]
    assert newest.manifest is not None
    key = newest.manifest.key_of(newest.manifest.members[0])
    path = staged.root / "secondary" / key
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(DamagedError):
        staged.runtime.verifier.verify(newest.ref)

    assert newest.verified, "the other copy is sound"
    assert not staged.back_up().unchanged, "every store has to have a sound copy"


def test_a_store_that_lacks_the_backup_gets_a_new_one(staged: FilesBench) -> None:
    ticket = staged.back_up()
    secondary = staged.runtime.stores["secondary"]
    secondary.delete(ticket.ref.manifest_key)

    assert not staged.back_up().unchanged


def test_what_was_saved_before_a_restore_does_not_stand(staged: FilesBench) -> None:
    ref = staged.ref("configuration")
    staged.runtime.backups.run(ref, mode="staged", before_restore="restore-1")
    staged.runtime.verifier.verify(ref)

    assert not staged.back_up().unchanged


def test_a_source_that_cannot_be_read_is_an_error_and_renews_nothing(staged: FilesBench) -> None:
    staged.back_up()
    (staged.etc / "unreadable").touch()

    with pytest.raises(AccessDeniedError, match="may not be read"):
        staged.back_up()

    (only,) = staged.listed()
    assert only.checked_at is None


def test_a_store_that_does_not_take_the_note_is_an_error_after_the_others_were_told(
    staged: FilesBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    staged.back_up()
    primary = staged.runtime.stores["primary"]
    put = type(primary).put

    def refusing(self: object, key: str, *args: object, **words: object) -> None:
        if self is primary and key.endswith("checked.json"):
            raise StoreUnavailableError("primary is away", remedy="Wait.")
        put(self, key, *args, **words)  # type: ignore[arg-type]

    monkeypatch.setattr(type(primary), "put", refusing)

    with pytest.raises(StoreUnavailableError, match="primary is away"):
        staged.back_up()

    (only,) = staged.listed()
    assert set(only.checks) == {"secondary"}


def test_a_check_that_is_damaged_counts_as_none_and_is_found_by_verify(
    staged: FilesBench,
) -> None:
    ticket = staged.back_up()
    staged.back_up()
    path = staged.root / "primary" / ticket.ref.checked_key
    path.chmod(0o600)
    path.write_bytes(path.read_bytes().replace(b"checked_at", b"checked_by"))

    (only,) = staged.listed()
    assert set(only.checks) == {"secondary"}
    assert only.problems == {}
    with pytest.raises(DamagedError, match=r"primary: .*checked\.json"):
        staged.runtime.verifier.verify(ticket.ref)


def test_a_check_of_another_backup_or_of_other_content_counts_as_none(staged: FilesBench) -> None:
    ticket = staged.back_up()
    staged.back_up()
    for name, lie in (("primary", {"backup_id": "x"}), ("secondary", {"fingerprint": "0" * 64})):
        store = staged.runtime.stores[name]
        body = document.decode(store.get(ticket.ref.checked_key), name=name)
        store.put(ticket.ref.checked_key, document.encode({**body, **lie}))

    (only,) = staged.listed()

    assert only.checked_at is None


def test_the_object_is_what_the_format_says(staged: FilesBench) -> None:
    ticket = staged.back_up()
    staged.back_up()

    data = staged.runtime.stores["primary"].get(ticket.ref.checked_key)

    body = json.loads(data)["body"]
    assert sorted(body) == ["backup_id", "checked_at", "fingerprint", "version"]
    assert body["backup_id"] == ticket.backup_id
    assert body["version"] == 1


def test_the_set_of_a_run_names_the_earlier_backup_of_the_unchanged_source(
    staged: FilesBench,
) -> None:
    sets = staged.runtime.sets()
    (staged.models / "llama").mkdir()
    (staged.models / "llama" / "w").write_text("1")
    (staged.models / "phi").mkdir()
    (staged.models / "phi" / "w").write_text("1")
    run = staged.ref("models__llama").set_id
    names = ["models__llama", "models__phi"]
    weights = Component.MODEL_WEIGHTS
    for name in names:
        staged.back_up(ref=staged.runtime.ref(run, name))
    first = sets.record(run, weights, names, whole=["models"])

    # Nothing has changed: the set is the earlier one, and none is written.
    second = staged.ref("models__llama", age=timedelta(minutes=-10)).set_id
    tickets = {name: staged.back_up(ref=staged.runtime.ref(second, name)) for name in names}
    standing = {name: ticket.backup_id for name, ticket in tickets.items() if ticket.unchanged}
    assert set(standing) == set(names)
    assert sets.record(second, weights, names, whole=["models"], unchanged=standing) == first
    assert [one.set_id for one in sets.newest_first(weights)] == [run]

    # One of the two has changed.
    (staged.models / "phi" / "w").write_text("2")
    third = staged.ref("models__llama", age=timedelta(minutes=-20)).set_id
    tickets = {name: staged.back_up(ref=staged.runtime.ref(third, name)) for name in names}
    standing = {name: ticket.backup_id for name, ticket in tickets.items() if ticket.unchanged}
    assert set(standing) == {"models__llama"}
    made = sets.record(third, weights, names, whole=["models"], unchanged=standing)

    assert made.set_id == third
    assert made.complete
    assert {name: one.backup_id for name, one in made.members.items()} == {
        "models__llama": f"{run}-models__llama",
        "models__phi": f"{third}-models__phi",
    }
    assert made.skew_seconds is not None
    assert made.skew_seconds < 60, "the unchanged one is as of this run's look at it"
    assert staged.runtime.set_to_restore("latest", component=weights) == made

    # One model that somebody backs up by hand does not stand for all of them.
    alone = staged.ref("models__phi", age=timedelta(minutes=-30))
    staged.back_up(ref=alone, backup_type=BackupType.FULL)
    sets.record(alone.set_id, weights, ["models__phi"])
    assert staged.runtime.set_to_restore("latest", component=weights) == made


def test_a_removed_part_is_in_no_set_that_stands_for_the_rest(staged: FilesBench) -> None:
    sets, weights = staged.runtime.sets(), Component.MODEL_WEIGHTS
    run = staged.ref("models__a").set_id
    for name in ("a", "b"):
        (staged.models / name).mkdir()
        (staged.models / name / "w").write_text(name)
        staged.back_up(ref=staged.runtime.ref(run, f"models__{name}"))
    sets.record(run, weights, ["models__a", "models__b"])

    later = staged.ref("models__a", age=timedelta(minutes=-10)).set_id
    ticket = staged.back_up(ref=staged.runtime.ref(later, "models__a"))
    made = sets.record(later, weights, ["models__a"], unchanged={"models__a": ticket.backup_id})

    assert ticket.unchanged
    assert made.set_id == later
    assert set(made.members) == {"models__a"}


def test_whether_a_change_was_backed_up_is_known_from_the_stores(staged: FilesBench) -> None:
    engine_of = staged.runtime.subject("configuration")
    stores = staged.runtime.stores

    def known() -> bool:
        current = engine_of.engine.fingerprint(engine_of.endpoint, engine_of.options)  # type: ignore[attr-defined]
        return unchanged.backed_up(
            stores, Component.CONFIGURATION, "configuration", fingerprint=current
        )

    assert not known()
    staged.back_up()
    assert known()
    (staged.etc / "app.yaml").write_text("answer: 43\n")
    assert not known()


def test_a_ticket_of_an_unchanged_source_passes_every_stage_untouched(staged: FilesBench) -> None:
    staged.back_up()
    ticket = staged.runtime.backups.dump(staged.ref("configuration"))

    assert ticket.unchanged
    for stage in (staged.runtime.backups.compress, staged.runtime.backups.encrypt):
        assert stage(ticket) == ticket
    assert staged.runtime.backups.upload(ticket) == ticket
    assert type(ticket)(**ticket.to_json()) == ticket


def test_a_backup_of_an_earlier_run_never_takes_a_later_one_as_its_own(
    staged: FilesBench,
) -> None:
    late = staged.back_up(ref=staged.ref("configuration", age=timedelta(hours=-1)))
    early = BackupRef.of(
        staged.ref("configuration", age=timedelta(hours=1)).set_id,
        Component.CONFIGURATION,
        "configuration",
    )

    assert early.backup_id < late.backup_id
    assert not staged.back_up(ref=early).unchanged
    assert replace(late, checked_at="x").unchanged
