"""Airflow's metadata: 200 variables of a real, migrated database, restored to another one."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography.fernet import Fernet

from support.airflow_database import (
    bare_database,
    put_connection,
    put_pool,
    put_variables,
)
from support.engines import Adapter
from support.wiring import session

if TYPE_CHECKING:
    from neuroca_backup.model.endpoint import Endpoint


class AirflowMetadata:
    """Two databases, each of an Airflow with a Fernet key of its own."""

    def __init__(self, source: Endpoint, target: Endpoint, key_file: Path) -> None:
        self._key = Fernet.generate_key().decode()
        key_file.touch(mode=0o600)
        key_file.write_text(f"{self._key}\n")
        self.source = source
        self._target_key = Fernet.generate_key().decode()
        self.target = replace(target, extra={**target.extra, "fernet_key": self._target_key})
        self.options = {"fernet_key_file": key_file}
        put_connection(source, self._key, "my_db", host="db", password="päss%", extra='{"a": 1}')
        put_connection(source, self._key, "bare")
        put_pool(source, "few", 3)
        self.add(200)

    def add(self, count: int) -> None:
        already = self.count(self.source)
        numbers = range(already, already + count)
        put_variables(self.source, self._key, {f"name {n:04}": f"value {n}" for n in numbers})

    def count(self, endpoint: Endpoint) -> int:
        with session(replace(endpoint, extra={"sslmode": "disable"})) as opened:
            return int(opened.execute("SELECT count(*) FROM variable").fetchall()[0][0])

    def harm(self, endpoint: Endpoint) -> None:
        put_variables(endpoint, self._target_key, {"name 0007": "value 8"})

    def fingerprint(self) -> object:
        with session(replace(self.target, extra={"sslmode": "disable"})) as opened:
            return [
                opened.execute("SELECT xmin::text, * FROM variable ORDER BY key").fetchall(),
                opened.execute("SELECT xmin::text, * FROM connection ORDER BY id").fetchall(),
                opened.execute("SELECT nspname FROM pg_namespace ORDER BY 1").fetchall(),
            ]

    def structural_damage(self, files: Path) -> Iterator[tuple[str, Callable[[], None]]]:
        def changed(path: Path, change: Callable[[bytes], bytes]) -> tuple[str, Callable[[], None]]:
            data = path.read_bytes()
            assert change(data) != data
            return path.name, lambda: _rewrite(path, change(data))

        for path in sorted(files.iterdir()):
            yield path.name, path.unlink
            yield changed(path, lambda _: b"")
            yield changed(path, lambda data: data[:-3])
            yield changed(path, lambda data: data + data.splitlines(keepends=True)[-1])
        variables = files / "variables.jsonl"
        yield changed(variables, lambda data: data.replace(b"value 7", b"value 8"))
        yield changed(variables, lambda data: data[data.index(b"\n") + 1 :])


def _rewrite(path: Path, data: bytes) -> None:
    path.write_bytes(data)


@contextmanager
def adapter(request: pytest.FixtureRequest) -> Iterator[Adapter]:
    server = request.getfixturevalue("postgres")
    source = bare_database(server, "airflow_contract")
    target = bare_database(server, "airflow_contract_target")
    with tempfile.TemporaryDirectory(prefix="neuroca-fernet-") as folder:
        yield AirflowMetadata(source, target, Path(folder) / "fernet.key")
