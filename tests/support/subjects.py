"""What the restore matrix does with each kind of source: look at all of it, change it, empty it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.fernet import Fernet

from neuroca_backup.sandbox import seed_milvus, seed_mongodb
from support import milvus
from support.airflow_database import bare_database, put_connection, put_variables
from support.engines.mongodb import connected
from support.model_files import safetensors
from support.redis_keys import client_of, content, flush
from support.wiring import add_rows, drop_databases, session

if TYPE_CHECKING:
    from neuroca_backup.model.endpoint import Endpoint

# So many things are in every source when it is backed up, and so many are added afterwards.
MANY, MORE = 200, 100
_AIRFLOW = "airflow_matrix"


@dataclass(frozen=True)
class Subject:
    """One source: where it is, where else it is restored to, and what can be done with either.

    `state` returns everything that a restore has to bring back, so that two states can be compared.
    `change` may be called again on what it has changed.
    """

    own: Any
    other: Any
    state: Callable[[Any], Any]
    change: Callable[[Any], None]
    empty: Callable[[Any], None]


def postgres(own: Endpoint, twin: Endpoint) -> Subject:
    """A database with the table `memory.items`."""

    def state(place: Endpoint) -> Any:
        with session(place, own.database) as opened:
            return opened.execute("SELECT * FROM memory.items ORDER BY id").fetchall()

    def change(place: Endpoint) -> None:
        add_rows(place, MORE)
        with session(place) as opened:
            opened.execute("DELETE FROM memory.items WHERE id <= 10")
            opened.execute("UPDATE memory.items SET content = 'another' WHERE id <= 20")

    return Subject(own, twin, state, change, lambda _: drop_databases(twin, like=own.database))


def mongodb(own: Endpoint, twin: Endpoint) -> Subject:
    """The episodes of the sandbox's seed, with their indexes, as the server itself hashes them."""

    def state(place: Endpoint) -> Any:
        with connected(place) as client:
            database = client[seed_mongodb.DATABASE]
            found = {one["name"]: one.get("options") for one in database.list_collections()}
            # A restore in place keeps what was there under such a name.
            names = [name for name in found if not name.startswith(("before_", "system."))]
            hashes = database.command("dbHash", collections=names)["collections"]
            indexes = {name: database[name].index_information() for name in hashes}
            options = {name: found[name] for name in names}
            return database["episodes"].count_documents({}), hashes, indexes, options

    def change(place: Endpoint) -> None:
        with connected(place) as client:
            episodes = client[seed_mongodb.DATABASE]["episodes"]
            episodes.delete_many({"summary": "later"})
            episodes.insert_many(
                {"_id": n, "episode_id": f"later {n}", "summary": "later"} for n in range(MORE)
            )
            episodes.delete_many({"user": 1})
            episodes.update_many({"user": 2}, {"$set": {"summary": "another"}})
            if "text" in episodes.index_information():
                episodes.drop_index("text")

    def empty(place: Endpoint) -> None:
        with connected(place) as client:
            client.drop_database(seed_mongodb.DATABASE)

    return Subject(own, twin, state, change, empty)


def redis(own: Endpoint, twin: Endpoint, *, tier: bytes = b"") -> Subject:
    """Every key whose name has `tier` in it, with its value and its expiry."""

    def state(place: Endpoint) -> Any:
        return {
            (database, key): found
            for database, keys in content(place).items()
            for key, found in keys.items()
            if tier in key
        }

    def change(place: Endpoint) -> None:
        for database in (0, 1):
            prefix = "neuroca:" if database else ""
            with client_of(place, database) as client:
                client.mset({f"{prefix}memory:stm:later:{n}": n for n in range(MORE)})
                keys = sorted(client.scan_iter(f"{prefix}memory:stm:*", count=10_000))
                client.delete(*[key for key in keys if b"later" not in key][:10])

    return Subject(own, twin, state, change, flush)


def vectors(own: Endpoint, twin: Endpoint) -> Subject:
    """The embeddings of the sandbox's seed, with every number of every vector."""

    def state(place: Endpoint) -> Any:
        with milvus.client(place) as client:
            rows = client.query(
                seed_milvus.COLLECTION,
                filter="id >= 0",
                output_fields=["*"],
                consistency_level="Strong",
            )
            indexes = [
                client.describe_index(seed_milvus.COLLECTION, name)["metric_type"]
                for name in client.list_indexes(seed_milvus.COLLECTION)
            ]
        return indexes, {
            row["id"]: (row["memory_id"], row["content"], row["metadata"], tuple(row["embedding"]))
            for row in rows
        }

    def change(place: Endpoint) -> None:
        with milvus.client(place) as client:
            client.delete(seed_milvus.COLLECTION, ids=list(range(10)))
            client.insert(
                seed_milvus.COLLECTION,
                [
                    {
                        "id": n,
                        "memory_id": f"later {n}",
                        "content": "later",
                        "metadata": {},
                        "embedding": [0.5] * seed_milvus.DIMENSION,
                    }
                    for n in range(MANY, MANY + MORE)
                ],
            )

    def empty(place: Endpoint) -> None:
        with milvus.client(place) as client:
            for name in client.list_collections():
                client.drop_collection(name)

    return Subject(own, twin, state, change, empty)


def airflow(server: Endpoint, twin: Endpoint, *, key: str) -> Subject:
    """Variables and connections in Airflow's metadata; the twin has another Fernet key."""
    twin_key = Fernet.generate_key().decode()
    own = bare_database(server, _AIRFLOW)
    other = replace(bare_database(twin, _AIRFLOW), extra={**twin.extra, "fernet_key": twin_key})
    put_variables(own, key, {f"name {n:04}": f"value {n}" for n in range(MANY)})
    put_connection(own, key, "my_db", host="db", password="päss%", extra='{"a": 1}')

    def state(place: Endpoint) -> Any:
        fernet = Fernet(twin_key if place is other else key)

        def opened(text: str | None) -> str | None:
            return None if text is None else fernet.decrypt(text.encode()).decode()

        with session(replace(place, extra={"sslmode": "disable"})) as asked:
            variables = asked.execute("SELECT key, val FROM variable ORDER BY key").fetchall()
            connections = asked.execute(
                "SELECT conn_id, host, password, extra FROM connection ORDER BY conn_id"
            ).fetchall()
        return (
            {name: opened(value) for name, value in variables},
            [(name, host, opened(one), opened(two)) for name, host, one, two in connections],
        )

    def change(place: Endpoint) -> None:
        later = {f"later {n}": "later" for n in range(MORE)}
        put_variables(place, key, {**later, "name 0007": "another"})
        with session(replace(place, extra={"sslmode": "disable"})) as opened:
            opened.execute("DELETE FROM connection")
            opened.execute("DELETE FROM variable WHERE key < 'name 0005'")

    return Subject(own, other, state, change, lambda _: bare_database(twin, _AIRFLOW))


def files(own: Path, target: Path, *, below: str) -> Subject:
    """Two hundred files in folders, restored to `below` within the directory `target`."""
    for n in range(MANY):
        path = own / f"folder-{n % 7}" / f"{n:03}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(safetensors(weight=f"content {n} ".encode() * (n + 1)))
        path.chmod(0o640 if n % 3 else 0o600)
    (own / "latest").symlink_to("folder-6/195.safetensors")

    def state(place: Path) -> Any:
        return {
            path.relative_to(place).as_posix(): (
                path.lstat().st_mode,
                path.lstat().st_mtime_ns,
                path.readlink() if path.is_symlink() else path.is_file() and path.read_bytes(),
            )
            for path in [place, *place.rglob("*")]
        }

    def change(place: Path) -> None:
        for n in range(MORE):
            (place / f"later-{n:03}.json").write_text("later\n")
        (place / "folder-1" / "001.safetensors").write_bytes(safetensors(weight=b"another"))
        (place / "folder-2" / "002.safetensors").chmod(0o644)
        (place / "latest").unlink(missing_ok=True)
        shutil.rmtree(place / "folder-3", ignore_errors=True)

    def empty(_: Path) -> None:
        shutil.rmtree(target, ignore_errors=True)

    return Subject(own, target / below, state, change, empty)
