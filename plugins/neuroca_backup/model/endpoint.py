"""Where a server is and how to log in; secrets never show in its repr."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

FILES = "files"  # the kind of an endpoint that is this machine's own file system


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server's address and credentials, from an Airflow connection or a file.

    `extra` holds engine-specific words (`sslmode`, `authSource`, `endpoint_url`, ...) and may hold
    secrets, so it is kept out of the repr together with the password.
    """

    kind: str
    host: str = ""
    port: int | None = None
    user: str = ""
    password: str = field(default="", repr=False)
    database: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def this_machine(cls, directory: Path | None = None) -> Endpoint:
        """Return the files of this machine; with `directory` (absolute) what a restore fills."""
        extra = {} if directory is None else {"directory": str(directory)}
        return cls(kind=FILES, extra=extra)

    @property
    def directory(self) -> Path | None:
        """The directory that a restore of files fills; None for the places they came from."""
        found = self.extra.get("directory") if self.kind == FILES else None
        return None if found is None else Path(found)

    @property
    def label(self) -> str:
        """`host:port`, for messages and audit; of files the directory, or `this machine`."""
        if self.kind == FILES:
            return "this machine" if self.directory is None else str(self.directory)
        return f"{self.host}:{self.port}" if self.port else self.host

    def same_server(self, other: Endpoint) -> bool:
        """Return whether both name the same host and port, loopback names being one host."""
        return (_canonical_host(self.host), self.port) == (_canonical_host(other.host), other.port)


def _canonical_host(host: str) -> str:
    lowered = host.lower().rstrip(".")
    return "localhost" if lowered in {"", "127.0.0.1", "::1", "localhost"} else lowered


class Connections(Protocol):
    """Turns the connection ids of `backup.yaml` into endpoints and AWS clients."""

    def endpoint(self, connection_id: str) -> Endpoint:
        """Return the endpoint of `connection_id`.

        Raises:
            ConfigurationError: There is no such connection; says where it was looked for.
        """
        ...

    def aws_client(self, service: str, *, region: str | None, connection_id: str | None) -> Any:
        """Return a boto3 client of `service` (`s3`, `kms`) in `region`.

        Without a connection id the AWS SDK's own credential chain is used.
        """
        ...
