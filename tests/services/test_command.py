"""The command against real servers: from a backup to what was lost, on good days and bad ones."""

from __future__ import annotations

import getpass
import json
import re
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import boto3
import psycopg
import pytest
import yaml

from command_stand import CLOSED_PORT, PASSPHRASE, Stand, connection, stand
from neuroca_backup import sandbox
from neuroca_backup.keyring.recovery import generate_recovery_pair
from neuroca_backup.model.endpoint import Endpoint


@pytest.fixture(scope="module")
def recovery(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """The private half, the public half and the passphrase's file of a recovery key."""
    folder = tmp_path_factory.mktemp("recovery")
    private, public, phrase = folder / "private.pem", folder / "public.pem", folder / "phrase"
    generate_recovery_pair(private, public, PASSPHRASE.encode())
    phrase.touch(mode=0o600)
    phrase.write_text(f"{PASSPHRASE}\n")
    return private, public, phrase


@pytest.fixture(scope="module")
def bench(
    tmp_path_factory: pytest.TempPathFactory,
    postgres: Endpoint,
    postgres_twin: Endpoint,
    object_stores: dict[str, Endpoint],
    recovery: tuple[Path, Path, Path],
) -> Iterator[Stand]:
    with stand(
        tmp_path_factory.mktemp("command"),
        postgres=postgres,
        postgres_twin=postgres_twin,
        primary=object_stores["us-west-2"],
        secondary=object_stores["eu-central-1"],
        recovery_public_key=recovery[1],
    ) as made:
        yield made


@pytest.fixture(scope="module")
def backup_id(bench: Stand) -> str:
    """A backup of 200 rows, after which 100 more were written."""
    assert "0 backups" in bench.done("catalog", "rebuild")
    bench.write_rows(200)
    table = bench.done("backup", "postgres")
    bench.write_rows(100)
    (line,) = [line for line in table.splitlines() if "parsed" in line]
    assert "intact" in line
    return line.split()[0]


@pytest.fixture
def empty_target(bench: Stand) -> Iterator[Stand]:
    """The stand with nothing of it on the target's server; the spool must be left empty."""
    bench.forget_target()
    yield bench
    assert not bench.spool.exists() or list(bench.spool.iterdir()) == []


def test_a_backup_leaves_the_spool_empty(bench: Stand, backup_id: str) -> None:
    assert backup_id.endswith("-postgres")
    assert list(bench.spool.iterdir()) == []


def test_list_shows_the_backup_with_the_level_of_every_store(bench: Stand, backup_id: str) -> None:
    listed = bench.done("list")
    (line,) = [line for line in listed.splitlines() if line.startswith(backup_id)]
    assert "intact" in line
    assert "parsed" in line
    assert "\x1b" not in listed


def test_list_as_json_has_its_keys(bench: Stand, backup_id: str) -> None:
    body = json.loads(bench.done("list", "--json"))
    assert body["unreachable"] == {}
    (one,) = [one for one in body["backups"] if one["backup_id"] == backup_id]
    assert one["stores"]["primary"]["level"] == "intact"
    assert one["stores"]["secondary"]["level"] == "parsed"
    assert one["verified"] is True
    assert one["plain_size"] > one["stored_size"] > 0


def test_a_list_of_nothing_says_so_and_exits_with_one(bench: Stand, backup_id: str) -> None:
    ended = bench.run("list", "--component", "logs")
    assert ended.returncode == 1
    assert ended.stdout == "No backups were found in primary, secondary.\n"


def test_show_names_members_checks_and_everybody_who_can_open_it(
    bench: Stand, backup_id: str, recovery: tuple[Path, Path, Path]
) -> None:
    shown = bench.done("show", backup_id)
    assert f"members/{bench.database}" in shown or bench.database in shown
    for arn in (bench_arn(bench, "kms_key_id"), bench_arn(bench, "secondary_kms_key_id")):
        assert f"opened by   kms {arn} (keys in primary, secondary)" in shown
    assert "opened by   recovery sha256:" in shown
    body = json.loads(bench.done("show", backup_id, "--json"))
    assert {one["recipient"].split()[0] for one in body["recipients"]} == {"kms", "recovery"}
    assert body["manifest"]["backup_id"] == backup_id


def test_verify_reads_every_copy_back(bench: Stand, backup_id: str) -> None:
    assert "parsed" in bench.done("verify", backup_id)
    # Bytes that are still the same are still parsed.
    assert "parsed" in bench.done("verify", "--source", "postgres", "--level", "intact")


def test_a_restore_into_another_server_brings_back_exactly_what_was_backed_up_but_once(
    empty_target: Stand, backup_id: str
) -> None:
    printed = empty_target.done("restore", "postgres", "--target-connection", "twin")
    assert empty_target.rows(empty_target.target) == 200
    assert empty_target.rows(empty_target.source) == 300
    for step in ("plan", "preflight", "fetch", "load", "compare", "publish"):
        assert f"{step:<10} done in" in printed
    assert f"restored, by {getpass.getuser()}@" in re.sub(
        r", [0-9.]+ s", "", empty_target.done("catalog", "status")
    )
    # The target holds data now.
    ended = empty_target.run("restore", "postgres", "--target-connection", "twin")
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-2].startswith("error: ")
    assert empty_target.database in ended.stderr


def test_a_server_that_is_backed_up_is_refused_as_a_target(
    empty_target: Stand, backup_id: str
) -> None:
    ended = empty_target.run("restore", "postgres", "--target-connection", "source")
    assert ended.returncode == 1
    assert "is the server of the source postgres" in ended.stderr


def test_a_dry_run_touches_nothing(empty_target: Stand, backup_id: str) -> None:
    printed = empty_target.done("restore", "postgres", "--target-connection", "twin", "--dry-run")
    assert backup_id in printed
    assert "preflight  done" in printed
    assert "fetch" not in printed.replace("nothing was fetched", "")


def test_a_dry_run_reads_back_says_how_long_it_takes_and_what_tells_so(
    empty_target: Stand, backup_id: str
) -> None:
    printed = empty_target.done("restore", "postgres", "--sandbox", "--dry-run")
    assert f"{backup_id} is intact in primary" in printed
    assert re.search(r"about \d+ (s|min) \((measured|assumed): ", printed)
    assert "integrity  done in" in printed
    in_place = empty_target.done(
        "restore", "postgres", "--in-place", "--confirm", "postgres", "--dry-run"
    )
    assert "which is kept beside under another name" in in_place
    assert empty_target.rows(empty_target.source) == 300


def test_everything_is_restored_with_one_command_and_a_table_says_what_became_of_it(
    empty_target: Stand, backup_id: str
) -> None:
    printed = empty_target.done("restore", "all", "--sandbox", "--no-wait")
    row = printed.splitlines()[-2].split()
    assert row[:3] == ["database", "postgres", backup_id]
    assert row[-1] == "restored"
    unconfirmed = empty_target.run("restore", "all", "--in-place", "--confirm", "postgres")
    assert unconfirmed.returncode == 2
    assert "--confirm all" in unconfirmed.stderr
    elsewhere = empty_target.run("restore", "all", "--target-connection", "twin")
    assert elsewhere.returncode == 2


def test_of_everything_what_fails_does_not_stop_the_rest_and_the_exit_code_says_so(
    empty_target: Stand, backup_id: str, tmp_path: Path
) -> None:
    document = yaml.safe_load((empty_target.folder / "backup.yaml").read_text())
    sources = document["backup"]["sources"]
    sources["neverbacked"] = {**sources["postgres"], "component": "configuration"}
    more = tmp_path / "more.yaml"
    more.write_text(yaml.safe_dump(document))
    ended = empty_target.run("--config-path", str(more), "restore", "all", "--sandbox", "--no-wait")
    assert ended.returncode == 1
    first, second = (row.split() for row in ended.stdout.splitlines()[-3:-1])
    assert first[:4] == ["configuration", "neverbacked", "-", "-"]
    assert "FAILED:" in first
    assert second[:2] == ["database", "postgres"]
    assert second[-1] == "restored"
    assert "The newest verified backup of each source is taken instead" in ended.stderr


def test_a_restore_in_place_keeps_what_it_replaces(empty_target: Stand, backup_id: str) -> None:
    printed = empty_target.done("restore", "postgres", "--in-place", "--confirm", "postgres")
    assert empty_target.rows(empty_target.source) == 200
    assert f"{empty_target.database} is kept as {empty_target.database}_before_" in printed
    empty_target.write_rows(100)


# A service that runs while its file is there, and can be made one that does not stop.
SERVICE = """#!/bin/sh
cd "$(dirname "$0")"; echo "$1" >> calls
case "$1" in
  status) [ -e running ] || exit 3 ;;
  stop) [ -e stuck ] || rm running ;;
  start) touch running ;;
esac
"""


@pytest.fixture
def serviced(empty_target: Stand) -> Iterator[tuple[Stand, Path]]:
    """The stand with a running service over its database, and the service's folder."""
    folder, settings = empty_target.folder / "api", empty_target.folder / "backup.yaml"
    folder.mkdir()
    program = folder / "api"
    program.write_text(SERVICE)
    program.chmod(0o700)
    (folder / "running").touch()
    plain = settings.read_text()
    document = yaml.safe_load(plain)
    words = {word: [str(program), word] for word in ("status", "stop", "start")}
    document["backup"]["services"] = {"database": [{"command": "api", "timeout": "1m", **words}]}
    settings.write_text(yaml.safe_dump(document))
    try:
        yield empty_target, folder
    finally:
        settings.write_text(plain)
        shutil.rmtree(folder)


def test_services_are_stopped_for_a_restore_in_place_and_started_again(
    serviced: tuple[Stand, Path], backup_id: str
) -> None:
    bench, service = serviced
    rehearsed = bench.done(
        "restore", "postgres", "--in-place", "--confirm", "postgres", "--dry-run"
    )
    assert "The service api is running" in rehearsed
    assert set((service / "calls").read_text().split()) == {"status"}

    printed = bench.done("restore", "postgres", "--in-place", "--confirm", "postgres")
    bench.write_rows(100)

    assert "api is stopped; it was running" in printed
    assert "api is running again" in printed
    assert (service / "running").exists()
    calls = (service / "calls").read_text().split()
    assert [word for word in calls if word != "status"] == ["stop", "start"]
    assert printed.index("fetch      done") < printed.index("stop       done")
    assert printed.index("stop       done") < printed.index("load       done")


def test_a_restore_that_fails_starts_its_services_again(
    serviced: tuple[Stand, Path], backup_id: str
) -> None:
    bench, service = serviced
    # The source answers at first, but nothing may be created on it.
    bench.execute(bench.source, "ALTER SYSTEM SET default_transaction_read_only = on")
    bench.execute(bench.source, "SELECT pg_reload_conf()")
    try:
        failed = bench.run("restore", "postgres", "--in-place", "--confirm", "postgres")
    finally:
        with psycopg.connect(
            host=bench.source.host,
            port=bench.source.port,
            user=bench.source.user,
            password=bench.source.password,
            dbname=bench.source.database,
            autocommit=True,
            options="-c default_transaction_read_only=off",
        ) as connection:
            connection.execute("ALTER SYSTEM RESET default_transaction_read_only")
            connection.execute("SELECT pg_reload_conf()")
    assert failed.returncode == 1, failed.stderr
    assert bench.rows(bench.source) == 300
    assert (service / "running").exists()


def test_a_service_that_cannot_be_told_stops_the_restore_before_anything_is_touched(
    serviced: tuple[Stand, Path], backup_id: str
) -> None:
    bench, service = serviced
    (service / "api").write_text("#!/bin/sh\nexit 4\n")
    failed = bench.run("restore", "postgres", "--in-place", "--confirm", "postgres")
    assert failed.returncode == 1
    assert "Nobody can tell whether api runs" in failed.stderr
    assert "fetch" not in failed.stdout
    assert bench.rows(bench.source) == 300


def test_every_run_is_a_set_that_is_listed_and_restored_as_a_whole(
    empty_target: Stand, backup_id: str
) -> None:
    of = backup_id.removesuffix("-postgres")
    listed = empty_target.done("sets")
    (row,) = [row for row in listed.splitlines() if row.startswith(of)]
    assert "complete" in row
    (body,) = [
        one
        for one in json.loads(empty_target.done("sets", "--json"))["sets"]
        if one["set_id"] == of
    ]
    assert (body["state"], body["skew_seconds"], body["missing"]) == ("complete", 0.0, [])
    assert body["members"]["postgres"]["backup_id"] == backup_id

    printed = empty_target.done("restore", "--set", of, "--sandbox", "--no-wait")

    assert "publish    done in" in printed
    assert f"1 of 1 sources of {of} are done." in printed
    unconfirmed = empty_target.run(
        "restore", "--set", "latest", "--in-place", "--confirm", "postgres"
    )
    assert unconfirmed.returncode == 2
    assert f"--confirm {of}" in unconfirmed.stderr
    assert empty_target.rows(empty_target.source) == 300


def test_a_set_whose_source_failed_is_incomplete_and_its_restore_says_what_it_lacks(
    empty_target: Stand, backup_id: str
) -> None:
    lost = {"source": connection(replace(empty_target.source, port=CLOSED_PORT), "postgres")}
    failed = empty_target.run("backup", "postgres", overrides=lost)
    assert failed.returncode == 3
    (of,) = re.findall(r"The set (\S+) of database is incomplete", failed.stderr)
    assert "incomplete" in empty_target.done("sets")

    restored = empty_target.run("restore", "--set", of, "--sandbox", "--no-wait")
    newest = empty_target.done("restore", "--set", "latest", "--sandbox", "--dry-run")

    assert restored.returncode == 1
    assert f"The set {of} has no backup of postgres" in restored.stderr
    assert backup_id in newest


def test_show_and_list_say_what_a_backup_continues(bench: Stand, backup_id: str) -> None:
    (row,) = [row for row in bench.done("list").splitlines() if row.startswith(backup_id)]
    assert row.split()[1] == "full"
    shown = bench.done("show", backup_id)
    assert "kind        full\n" in shown
    assert "restores    the state of " in shown
    body = json.loads(bench.done("show", backup_id, "--json"))
    assert (body["kind"], body["parent"], body["chain"]) == ("full", None, [backup_id])


def test_a_part_that_the_backup_does_not_have_is_refused_before_anything_is_touched(
    empty_target: Stand, backup_id: str
) -> None:
    ended = empty_target.run(
        "restore", "postgres", "--target-connection", "twin", "--only", "no_such_part"
    )
    assert ended.returncode == 2
    assert "no_such_part" in ended.stderr


def test_a_moment_that_no_backup_covers_names_the_nearest_one(bench: Stand, backup_id: str) -> None:
    ended = bench.run("restore", "postgres", "--sandbox", "--until", "2020-01-01T00:00Z")
    assert ended.returncode == 1
    assert "nearest restorable points are after it" in ended.stderr


def test_a_source_that_backup_yaml_has_lost_can_still_be_restored(
    empty_target: Stand, backup_id: str, tmp_path: Path
) -> None:
    document = yaml.safe_load((empty_target.folder / "backup.yaml").read_text())
    sources = document["backup"]["sources"]
    sources["another"] = sources.pop("postgres")
    rescue = tmp_path / "rescue.yaml"
    rescue.write_text(yaml.safe_dump(document))
    empty_target.done(
        "--config-path", str(rescue), "restore", "postgres", "--target-connection", "twin"
    )
    assert empty_target.rows(empty_target.target) == 200
    unknown = empty_target.run("restore", "nobody", "--sandbox")
    assert unknown.returncode == 1
    assert "Use one of: postgres" in unknown.stderr


def test_without_its_catalog_the_command_lists_and_restores(
    empty_target: Stand, backup_id: str
) -> None:
    lost = {"catalog": connection(replace(empty_target.target, port=CLOSED_PORT), "postgres")}
    assert backup_id in empty_target.done("list", overrides=lost)
    ended = empty_target.run("restore", "postgres", "--target-connection", "twin", overrides=lost)
    assert ended.returncode == 0, ended.stderr
    assert empty_target.rows(empty_target.target) == 200
    assert "The catalog missed restore" in ended.stderr
    assert empty_target.run("catalog", "status", overrides=lost).returncode == 3


def test_a_lost_catalog_is_made_again_from_the_stores(bench: Stand, backup_id: str) -> None:
    with_hole = bench.done("catalog", "status")
    assert "1 backups" in with_hole
    bench_catalog_drop(bench)
    rebuilt = bench.done("catalog", "rebuild")
    assert "1 backups in 2 copies" in rebuilt
    assert "secondary parsed" in bench.done("catalog", "status")


def test_with_every_kms_key_gone_the_recovery_key_restores(
    empty_target: Stand, backup_id: str, recovery: tuple[Path, Path, Path]
) -> None:
    # Each region's address now leads to a server that has never had the key.
    swapped = {
        "us_kms": empty_target.connections["eu_kms"],
        "eu_kms": empty_target.connections["us_kms"],
    }
    words = ("restore", "postgres", "--target-connection", "twin")
    refused = empty_target.run(*words, overrides=swapped)
    assert refused.returncode == 1
    assert "No recipient could unwrap" in refused.stderr
    assert "[recovery sha256:" in refused.stderr
    assert refused.stderr.count("does not exist") >= 2
    no_phrase = empty_target.run(*words, "--recovery-key", str(recovery[0]), overrides=swapped)
    assert no_phrase.returncode == 2
    assert "--passphrase-file" in no_phrase.stderr
    given = ("--recovery-key", str(recovery[0]), "--passphrase-file", str(recovery[2]))
    printed = empty_target.done(*words, *given, overrides=swapped)
    assert empty_target.rows(empty_target.target) == 200
    assert PASSPHRASE not in printed


def test_decrypt_gives_the_bytes_of_one_member_to_a_new_private_file(
    bench: Stand, backup_id: str, tmp_path: Path
) -> None:
    output = tmp_path / "globals.sql"
    words = ("decrypt", backup_id, "globals.sql", "--output", str(output))
    bench.done(*words)
    assert b"PostgreSQL database cluster dump" in output.read_bytes()
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    again = bench.run(*words)
    assert again.returncode == 1
    assert "already exists" in again.stderr
    missing = bench.run("decrypt", backup_id, "nothing", "--output", str(tmp_path / "nothing"))
    assert missing.returncode == 1
    assert "globals.sql" in missing.stderr
    assert not (tmp_path / "nothing").exists()
    raw = tmp_path / "globals.sql.zst"
    bench.done(*words[:3], "--output", str(raw), "--raw", "--store", "secondary")
    assert raw.read_bytes()[:4] == b"\x28\xb5\x2f\xfd"


@pytest.mark.parametrize(
    ("number", "moment", "code"),
    [
        (signal.SIGINT, "fetch      done", 130),
        (signal.SIGTERM, "The sandbox is kept", 128 + signal.SIGTERM),
    ],
)
def test_an_ended_restore_leaves_no_server_and_nothing_in_the_spool(
    bench: Stand, backup_id: str, number: int, moment: str, code: int
) -> None:
    with subprocess.Popen(
        # Whoever runs the tests in the background has made them, and their children, ignore SIGINT.
        ["/usr/bin/env", "--default-signal=INT", *bench.argv, "restore", "postgres", "--sandbox"],
        env=bench.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        printed = []
        for line in process.stdout:
            printed.append(line)
            if line.startswith(moment):
                break
        (root,) = bench.spool.glob("sandbox-*")
        (server,) = sandbox.status(root).values()
        assert server.running
        process.send_signal(number)
        assert process.wait(60) == code
    assert printed[-1].startswith(moment)
    assert list(bench.spool.iterdir()) == []
    assert not Path(f"/proc/{server.pid}").exists()


def test_a_damaged_copy_is_found_with_code_four_and_another_one_is_restored(
    empty_target: Stand, backup_id: str, object_stores: dict[str, Endpoint]
) -> None:
    with damaged(empty_target, backup_id, object_stores["us-west-2"]) as key:
        found = empty_target.run("verify", backup_id)
        assert found.returncode == 4
        assert f"primary: {key}" in found.stderr
        assert "damaged" in found.stdout
        alone = empty_target.run("verify", backup_id, "--store", "secondary")
        assert alone.returncode == 0, alone.stderr
        printed = empty_target.done("restore", "postgres", "--target-connection", "twin")
        assert "globals.sql was not taken from primary" in printed
        assert empty_target.rows(empty_target.target) == 200
        output = empty_target.folder / "from-primary"
        refused = empty_target.run(
            *("decrypt", backup_id, "globals.sql", "--store", "primary", "--output", str(output))
        )
        assert refused.returncode == 4
        assert not output.exists()
    assert empty_target.run("verify", backup_id).returncode == 0


def test_a_lost_primary_region_is_named_and_the_secondary_restores(
    tmp_path: Path, postgres: Endpoint, postgres_twin: Endpoint, object_stores: dict[str, Endpoint]
) -> None:
    root = tmp_path / "region"
    primary = sandbox.start(root, ["s3_us_west_2"])["s3_us_west_2"]
    try:
        with stand(
            tmp_path,
            postgres=postgres,
            postgres_twin=postgres_twin,
            primary=primary,
            secondary=object_stores["eu-central-1"],
        ) as bench:
            bench.write_rows(200)
            bench.done("backup", "postgres", "--mode", "streamed")
            bench.write_rows(100)
            sandbox.stop(root)
            printed = bench.done("restore", "postgres", "--target-connection", "twin")
            assert bench.rows(bench.target) == 200
            assert "primary is left out" in printed
            assert "from secondary" in printed
            assert "from primary" not in printed
            listed = bench.done("list")
            assert "primary did not answer" in listed
            assert "no answer" in listed
    finally:
        sandbox.stop(root)


@contextmanager
def damaged(bench: Stand, backup_id: str, region: Endpoint) -> Iterator[str]:
    """Flip one bit in the middle of the copy of globals.sql in `region`; give its key."""
    shown = json.loads(bench.done("show", backup_id, "--json"))
    manifest = shown["manifest"]
    key = f"database/postgres/{backup_id}/{manifest['attempt']}/members/globals.sql"
    document = yaml.safe_load((bench.folder / "backup.yaml").read_text())
    path = document["backup"]["storage"]["primary"]["path"].strip("/")
    s3 = boto3.client(
        "s3",
        region_name=region.extra["region_name"],
        endpoint_url=region.extra["endpoint_url"],
        aws_access_key_id=region.user,
        aws_secret_access_key=region.password,
    )
    place = {"Bucket": region.extra["bucket"], "Key": f"{path}/{key}"}
    good = s3.get_object(**place)["Body"].read()
    bad = bytearray(good)
    bad[len(bad) // 2] ^= 1
    s3.put_object(**place, Body=bytes(bad))
    try:
        yield key
    finally:
        s3.put_object(**place, Body=good)


def bench_arn(bench: Stand, word: str) -> str:
    document = yaml.safe_load((bench.folder / "backup.yaml").read_text())
    return str(document["backup"]["encryption"][word])


def bench_catalog_drop(bench: Stand) -> None:
    import psycopg  # noqa: PLC0415 - one test's

    told = json.loads(bench.connections["catalog"])
    with psycopg.connect(
        host=told["host"],
        port=told["port"],
        user=told["login"],
        password=told["password"],
        dbname=told["schema"],
        autocommit=True,
    ) as connected:
        connected.execute("DROP SCHEMA neuroca_backup CASCADE")
