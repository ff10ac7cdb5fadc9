"""PostgreSQL with the three tables of Airflow that hold its own configuration, and a key.

It stands for a new Airflow: enough to restore connections, variables and pools into, and to read
them back, without the seconds and the packages that a whole one takes.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass, replace

from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.sandbox.postgres import PostgresServer
from neuroca_backup.sandbox.process import Account
from neuroca_backup.sandbox.server import Launch

# As Airflow 3.3 has them, but for the foreign keys to tables that are not here.
TABLES = """
CREATE TABLE connection (
    id serial PRIMARY KEY, conn_id varchar(250) NOT NULL UNIQUE, conn_type varchar(500) NOT NULL,
    description text, host varchar(500), schema varchar(500), login text, password text,
    port integer, is_encrypted boolean NOT NULL DEFAULT false,
    is_extra_encrypted boolean NOT NULL DEFAULT false, team_name varchar(50), extra text);
CREATE TABLE variable (
    id serial PRIMARY KEY, key varchar(250) UNIQUE, val text, description text,
    is_encrypted boolean NOT NULL DEFAULT false, team_name varchar(50));
CREATE TABLE slot_pool (
    id serial PRIMARY KEY, pool varchar(256) UNIQUE, slots integer, description text,
    include_deferred boolean NOT NULL DEFAULT false, team_name varchar(50));
"""


@dataclass(frozen=True, slots=True)
class AirflowMetadataServer:
    """See `neuroca_backup.sandbox.server.Server`; the extra of its endpoint has the Fernet key."""

    superuser: str = "nca_admin"
    kind: str = "airflow_metadata"
    stop_signal: int = signal.SIGINT
    grace_seconds: float = 10

    @property
    def account(self) -> Account | None:
        """`nobody` when we are root."""
        return Account.unprivileged()

    def start(self, launch: Launch) -> Endpoint:
        """Start PostgreSQL, make the tables and a key."""
        import psycopg  # noqa: PLC0415 - importing the sandbox must stay cheap
        from cryptography.fernet import Fernet  # noqa: PLC0415 - as above

        endpoint = PostgresServer(kind=self.kind, superuser=self.superuser).start(launch)
        with psycopg.connect(
            host=endpoint.host,
            port=endpoint.port,
            user=endpoint.user,
            password=endpoint.password,
            dbname=endpoint.database,
        ) as connection:
            connection.execute(TABLES)
        key = Fernet.generate_key().decode()
        return replace(endpoint, extra={**endpoint.extra, "fernet_key": key})
