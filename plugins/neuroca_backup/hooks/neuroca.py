"""Airflow's connections and errors in our terms, and the runtime built from both.

Everything heavy is imported inside the methods: a module that DAG files import must cost nothing.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowNotFoundException,
    AirflowTaskTimeout,
)

from neuroca_backup.errors import ConfigurationError, PermanentError, TransientError
from neuroca_backup.model.endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow.sdk import Connection

    from neuroca_backup.runtime import Runtime
    from neuroca_backup.settings import Settings

# A request that gets no byte for this long has lost its peer; the SDK then tries again.
_CONNECT_SECONDS = 10
_READ_SECONDS = 60
_AWS_ATTEMPTS = 5
_POOL_CONNECTIONS = 32


class AirflowConnections:
    """Airflow's connections as the endpoints and AWS clients that the services ask for."""

    def endpoint(self, connection_id: str) -> Endpoint:
        """Return the endpoint that an Airflow connection describes.

        The password is registered with Airflow's log masker, in its URL-encoded forms, too.

        Raises:
            ConfigurationError: There is no such connection; the remedy says how to create it.
        """
        connection = _connection(connection_id)
        _mask(connection.password)
        return Endpoint(
            kind=connection.conn_type or "",
            host=connection.host or "",
            port=connection.port,
            user=connection.login or "",
            password=connection.password or "",
            database=connection.schema or "",
            extra=connection.extra_dejson,
        )

    def aws_client(self, service: str, *, region: str | None, connection_id: str | None) -> Any:
        """Return a boto3 client made by the Amazon provider.

        The connection's `endpoint_url`, role and `config_kwargs` are honoured; without a
        connection id the AWS SDK's own credential chain is used.

        Raises:
            ConfigurationError: The connection does not exist (the provider would silently fall
                back to the credential chain), or no region is given anywhere.
        """
        from airflow.providers.amazon.aws.hooks.base_aws import (  # noqa: PLC0415 - takes seconds
            AwsGenericHook,
        )
        from botocore.config import Config  # noqa: PLC0415 - as above
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415 - as above

        if connection_id is not None:
            _mask(_connection(connection_id).password)
        # Checksums in trailers end up inside the objects of some S3 clones:
        # https://docs.aws.amazon.com/sdkref/latest/guide/feature-dataintegrity.html
        ours: Any = Config(  # type: ignore[no-untyped-call]
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=_READ_SECONDS,
            retries={"mode": "standard", "total_max_attempts": _AWS_ATTEMPTS},
            max_pool_connections=_POOL_CONNECTIONS,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        hook: Any = AwsGenericHook(
            aws_conn_id=connection_id, region_name=region, client_type=service
        )
        try:
            return hook.get_client_type(region_name=region, config=ours.merge(hook.config))
        except (BotoCoreError, ValueError) as error:
            source = f"the connection {connection_id!r}" if connection_id else "the AWS SDK's chain"
            raise ConfigurationError(
                f"No {service} client can be made from {source} ({type(error).__name__})",
                remedy="Give region_name and, for a server that is not AWS, endpoint_url in the "
                "connection's extra; check its role and profile.",
                connection_id=connection_id,
            ) from None


class NeurocaHook(BaseHook):
    """The door from a task to the services: settings from backup.yaml, connections from Airflow."""

    def __init__(self, *, settings: Settings | None = None) -> None:
        super().__init__()
        self._settings = settings

    @cached_property
    def connections(self) -> AirflowConnections:
        """Airflow's connections."""
        return AirflowConnections()

    @cached_property
    def runtime(self) -> Runtime:
        """The services, built on first use, which must be within a task."""
        from neuroca_backup.runtime import Runtime  # noqa: PLC0415 - imports every engine's client
        from neuroca_backup.settings import default_path, load  # noqa: PLC0415 - as above

        settings = self._settings or load(default_path())
        return Runtime.build(settings, self.connections, actor=_who())


# Airflow's own words are "Timeout" and the number of a process.
_TIMED_OUT = (
    "Airflow ended this task at its time limit, the `execution_timeout` of its DAG. What it had "
    "begun counts for nothing and is tried again. A stage of a backup may take as long as the RPO "
    "of its component, a step of a restore as long as `objectives.rto.full_system`. Where the data "
    "have outgrown that, raise it in backup.yaml, or let the source have incremental backups, the "
    "mode `streamed`, or fewer data: a part of them can be a source of its own."
)


@contextmanager
def translated() -> Iterator[None]:
    """Turn our errors into Airflow's: what only a person can mend is not retried, the rest is.

    A time limit of Airflow that ends the block stays one, and says what may be done. The traceback
    stays; the causes are dropped, because a vendor's error may hold a connection string.
    """
    try:
        yield
    except PermanentError as error:
        raise AirflowFailException(str(error)).with_traceback(error.__traceback__) from None
    except TransientError as error:
        raise AirflowException(str(error)).with_traceback(error.__traceback__) from None
    except AirflowTaskTimeout as error:
        raise AirflowTaskTimeout(_TIMED_OUT).with_traceback(error.__traceback__) from None


def run_actor(run: Any) -> str:
    """Return who acts in a DAG run, for the records: who triggered it, if anybody, and the run."""
    place = f"airflow:{run.dag_id}/{run.run_id}"
    user = getattr(run, "triggering_user_name", None)
    return f"{user} ({place})" if user else place


def _who() -> str:
    """Return who acts in the task that this is; "" where it is none."""
    from airflow.sdk import get_current_context  # noqa: PLC0415 - only within a task

    try:
        return run_actor(get_current_context()["dag_run"])
    except (RuntimeError, KeyError):
        return ""


def _connection(connection_id: str) -> Connection:
    try:
        return BaseHook.get_connection(connection_id)
    except AirflowNotFoundException:
        raise ConfigurationError(
            f"There is no Airflow connection {connection_id!r}",
            remedy="Create it under Admin > Connections, with `airflow connections add "
            f"{connection_id} --conn-uri ...`, or as AIRFLOW_CONN_{connection_id.upper()} in the "
            "environment of every worker.",
            connection_id=connection_id,
        ) from None


def _mask(password: str | None) -> None:
    from airflow.sdk.log import mask_secret  # noqa: PLC0415 - configures logging when imported

    if password:
        for form in {password, quote(password, safe=""), quote(password), quote_plus(password)}:
            mask_secret(form)
