"""The demo from beginning to end, and its removal. Every part may be run again at any time."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from psycopg import sql

from neuroca_backup import sandbox
from neuroca_backup.catalog.postgres import PostgresCatalog
from neuroca_backup.demo import configuration
from neuroca_backup.demo.airflow_api import AirflowApi
from neuroca_backup.demo.airflow_processes import AirflowProcesses
from neuroca_backup.demo.evidence import gather, reports, table
from neuroca_backup.demo.following import FinishedRun, Follower
from neuroca_backup.demo.place import Place, write_private
from neuroca_backup.demo.screen import Screen
from neuroca_backup.demo.sources import components
from neuroca_backup.errors import NotFoundError, UnreachableError
from neuroca_backup.keyring.recovery import generate_recovery_pair
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.identity import Component
from neuroca_backup.postgres_session import connect
from neuroca_backup.sandbox import seed_files
from neuroca_backup.sandbox.readiness import PortTakenError, on_free_ports
from neuroca_backup.sandbox.seed import expected, seed

# The server that elsewhere takes a restore: the demo's restore starts one of its own.
METADATA = "postgres_twin"
RECOVERY = "disaster_recovery"
STORES = ("postgres", "mongodb", "redis", "milvus", "s3_us_west_2", "s3_eu_central_1")
_HEALTHY_SECONDS = 180
_POLL_SECONDS = 0.2


@dataclass(slots=True)
class Demo:
    """The demo at `place`, telling of itself on `screen`."""

    place: Place
    screen: Screen

    def up(self, *, scale: float) -> None:
        """Start what does not run, fill the data stores, back up, restore, and show the proof.

        Raises:
            BackupError: Something failed; its notes say which step, and where its log is.
        """
        seeded = {**expected(scale), **seed_files.counts()}
        with self.place.exclusive(create=True):
            self.place.create()
            environment = self._prepare(scale)
            api = self._api(environment)
            follower = Follower(api, self.screen, self._airflow.require_alive)
            with self.screen.step("Back up", log=self.place.task_logs):
                backups = self._back_up(api, follower)
            with self.screen.step("Restore into throwaway servers", log=self.place.task_logs):
                follower.wait_for("restore")
                databases = backups[Component.DATABASE]
                made = api.result(databases.dag_id, databases.run_id, "set")["set_id"]
                restore = follower.run("restore", {"set_id": made, "target": "sandbox"})
            found = gather(
                api,
                self.place,
                environment,
                backups=backups,
                restore=restore,
                seeded=seeded,
            )
        self.screen.console.print(table(found))
        self._farewell()

    def down(self) -> None:
        """Stop everything and remove everything; there being nothing is no error."""
        with self.place.exclusive(create=False) as found:
            if not found:
                self.screen.say("Nothing to stop.")
                return
            self._airflow.stop()
            # Airflow's tasks are gone, so no new throwaway server can turn up.
            for root in self._sandboxes():
                sandbox.stop(root)
            self.place.remove()
        self.screen.say(f"Everything is stopped, and {self.place.root} is removed.")

    def drill(self) -> None:
        """Drill the recovery of everything, and leave its report below the demo's folder.

        Raises:
            NotFoundError: The demo is not up.
            ToolFailedError: Something did not come back; the report says what, too.
        """
        self.login()
        environment = self._environment()
        api = self._api(environment)
        follower = Follower(api, self.screen, self._airflow.require_alive)
        with self.screen.step("Drill a disaster recovery", log=self.place.task_logs):
            follower.wait_for(RECOVERY)
            run_id = api.trigger(RECOVERY, {"what_happened": "A drill of the demo"})
            try:
                follower.finish(RECOVERY, run_id)
            finally:
                planned = api.result(RECOVERY, run_id, "assess.plan")
                for path in reports(self.place, environment, planned["recovery_id"]):
                    self.screen.say(f"Report: {path}")

    def login(self) -> tuple[str, str, str]:
        """Return Airflow's address, user and password.

        Raises:
            NotFoundError: The demo is not up.
        """
        environment = self._environment()
        if not environment:
            raise NotFoundError("The demo is not up", remedy="Start it with `make demo`.")
        return _address(environment), configuration.USER, self.place.secrets()["admin"]

    def _back_up(self, api: AirflowApi, follower: Follower) -> dict[Component, FinishedRun]:
        """Run the backup DAG of every component, all of them at the same time."""
        started = {}
        for component in components():
            follower.wait_for(f"backup_{component}")
            started[component] = api.trigger(f"backup_{component}", {})
        return {
            component: follower.finish(f"backup_{component}", run_id)
            for component, run_id in started.items()
        }

    def _prepare(self, scale: float) -> dict[str, str]:
        """Bring up servers and Airflow, as much as possible at the same time."""
        pool = ThreadPoolExecutor(3, thread_name_prefix="demo")
        try:
            starting = pool.submit(self._start_stores)
            metadata = pool.submit(self._start_metadata)
            keys = pool.submit(self._make_recovery_keys)
            stores = starting.result()
            filling = pool.submit(self._fill, stores, scale)
            keys.result()
            environment = self._start_airflow(stores, metadata.result())
            filling.result()
        except KeyboardInterrupt:
            # The threads end with this process; what they started is written down.
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
        pool.shutdown()
        return environment

    def _start_stores(self) -> dict[str, Endpoint]:
        with self.screen.step("Start data stores, S3 and KMS", log=self.place.servers):
            return sandbox.start(self.place.servers, STORES)

    def _fill(self, stores: Mapping[str, Endpoint], scale: float) -> None:
        with self.screen.step("Fill the data stores, write files", log=self.place.servers):
            seed_files.seed(self.place.files, scale=scale)
            seed(stores, scale=scale)

    def _start_metadata(self) -> Endpoint:
        """Start the server for Airflow and the catalog; migrate both where it is new."""
        before = sandbox.endpoints(self.place.metadata).get(METADATA)
        with self.screen.step("Start PostgreSQL for Airflow", log=self.place.metadata):
            server = sandbox.start(self.place.metadata, [METADATA])[METADATA]
            for database in (configuration.METADATA_DATABASE, configuration.CATALOG_DATABASE):
                _ensure_database(server, database)
            catalog = replace(server, database=configuration.CATALOG_DATABASE)
            PostgresCatalog(catalog).prepare()
        if server != before or not all(self._airflow.alive().values()):
            with self.screen.step("airflow db migrate", log=self._airflow.log("migrate")):
                unused_port = 0
                self._airflow.migrate(
                    configuration.airflow_environment(self.place, server, port=unused_port)
                )
        return server

    def _make_recovery_keys(self) -> None:
        private, public = self.place.recovery / "private.pem", self.place.recovery / "public.pem"
        if not (private.exists() and public.exists()):
            private.unlink(missing_ok=True)
            public.unlink(missing_ok=True)
            passphrase = self.place.secrets()["recovery"]
            write_private(self.place.recovery / "passphrase", passphrase)
            generate_recovery_pair(private, public, passphrase.encode())

    def _start_airflow(self, stores: Mapping[str, Endpoint], metadata: Endpoint) -> dict[str, str]:
        """Start Airflow, or leave it as it is where nothing has changed for it."""
        connections = configuration.connections(stores, metadata)
        settings = configuration.backup_yaml(self.place, stores)

        def wanted(port: int) -> dict[str, str]:
            airflow = configuration.airflow_environment(self.place, metadata, port=port)
            return {**airflow, **connections}

        running = self._environment()
        with self.screen.step("Start Airflow", log=self.place.logs):
            if running and running == wanted(_port(running)) and self._responds(running):
                self.screen.say("Airflow runs already.", style="dim")
                return running
            self._airflow.stop()
            write_private(self.place.settings, settings)
            made = self.place.secrets()
            passwords = {
                configuration.USER: made["admin"],
                configuration.SECOND_USER: made["approver"],
            }
            write_private(self.place.passwords, json.dumps(passwords))
            return on_free_ports(1, lambda ports: self._launch(wanted(ports[0])))

    def _launch(self, environment: dict[str, str]) -> dict[str, str]:
        write_private(self.place.environment, configuration.shell(environment))
        self._airflow.start(environment)
        try:
            self._wait_until_healthy(environment)
        except PortTakenError:
            self._airflow.stop()
            raise
        return environment

    def _wait_until_healthy(self, environment: Mapping[str, str]) -> None:
        api = self._api(environment)
        deadline = time.monotonic() + _HEALTHY_SECONDS
        while not api.healthy():
            self._airflow.require_alive()
            if time.monotonic() >= deadline:
                raise UnreachableError(
                    f"Airflow was not healthy within {_HEALTHY_SECONDS} s",
                    remedy="On a busy machine run `make demo` again; else look at its logs.",
                )
            time.sleep(_POLL_SECONDS)

    def _responds(self, environment: Mapping[str, str]) -> bool:
        return all(self._airflow.alive().values()) and self._api(environment).healthy()

    def _api(self, environment: Mapping[str, str]) -> AirflowApi:
        password = self.place.secrets()["admin"]
        return AirflowApi(_address(environment), user=configuration.USER, password=password)

    def _environment(self) -> dict[str, str]:
        """Return the environment that Airflow was last started with; empty if it never was."""
        try:
            return configuration.parse_shell(self.place.environment.read_text())
        except FileNotFoundError:
            return {}

    @property
    def _airflow(self) -> AirflowProcesses:
        return AirflowProcesses(self.place)

    def _sandboxes(self) -> list[Path]:
        """Return the sandboxes that may have servers: those of restores, then our own."""
        restores = sorted(self.place.spool.glob("sandbox-*"))
        return [*restores, self.place.servers, self.place.metadata]

    def _farewell(self) -> None:
        address, user, password = self.login()
        self.screen.say("Done.")
        for line in (
            "",
            f"Airflow   {address}",
            f"user      {user}",
            f"password  {password}",
            f"who approves: {configuration.SECOND_USER}, {self.place.secrets()['approver']}",
            "",
            "Look at the graph of backup_database; trigger restore with its form.",
            "Drill the recovery of everything: make drill",
            f"Change a file below {self.place.files / 'configuration'}: its backup starts.",
            f"backup.yaml, spool and logs are in {self.place.root}",
            "Stop and remove all of it: make down",
        ):
            self.screen.console.print(line, markup=False, highlight=False, soft_wrap=True)


def _ensure_database(server: Endpoint, database: str) -> None:
    with connect(server, autocommit=True) as connection:
        found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [database])
        if found.fetchone() is None:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))


def _port(environment: Mapping[str, str]) -> int:
    return int(environment["AIRFLOW__API__PORT"])


def _address(environment: Mapping[str, str]) -> str:
    return environment["AIRFLOW__API__BASE_URL"]
