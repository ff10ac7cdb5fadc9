"""S3 and KMS of two regions that enforce the policies of `services/policies`, one user a role."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuroca_backup import sandbox
from neuroca_backup.connections import FileConnections
from neuroca_backup.runtime import Runtime
from neuroca_backup.services.policies import identity
from neuroca_backup.settings import Role, Settings
from support.wiring import connection

if TYPE_CHECKING:
    from neuroca_backup.model.endpoint import Endpoint

ADMINISTRATOR = "administrator"
_EVERYTHING = {
    "Version": identity.VERSION,
    "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}],
}


def for_emulator(policy: Mapping[str, Any]) -> dict[str, Any]:
    """Return `policy` as the emulator understands it; what it cannot do is tested elsewhere.

    It knows no conditions, no resources of KMS, calls HeadBucket an action of its own, and asks
    whether the bucket, not the objects, may be deleted from.
    """
    made = []
    for statement in policy["Statement"]:
        one = {word: value for word, value in statement.items() if word != "Condition"}
        if any(action.startswith("kms:") for action in one["Action"]):
            one["Resource"] = "*"
        if "s3:ListBucket" in one["Action"]:
            one["Action"] = [*one["Action"], "s3:HeadBucket"]
        if "s3:DeleteObject" in one["Action"] and one["Effect"] == "Allow":
            buckets = {":".join(place.split("/", 1)[:1]) for place in one["Resource"]}
            one["Resource"] = [*one["Resource"], *sorted(buckets)]
        made.append(one)
    return {**policy, "Statement": made}


@dataclass(frozen=True)
class Guarded:
    """Two regions that refuse whatever the policy of a user does not allow."""

    regions: Mapping[str, Endpoint]
    folder: Path
    storage: Mapping[str, Any]

    @classmethod
    def start(cls, folder: Path) -> Guarded:
        """Start both regions below `folder`; they refuse nothing before `enforce`."""
        started = sandbox.start(folder / "sandbox", ["s3_us_west_2", "s3_eu_central_1"])
        regions = {one.extra["region_name"]: one for one in started.values()}
        us, eu = regions["us-west-2"], regions["eu-central-1"]
        storage = {
            name: {
                "type": "s3",
                "bucket": one.extra["bucket"],
                "region": one.extra["region_name"],
                "path": "/nca",
                "connection": word,
            }
            for name, one, word in (("primary", us, "us"), ("secondary", eu, "eu"))
        }
        return cls(regions, folder, storage)

    def settings(self, *, incremental: bool = False) -> Settings:
        """Return settings with a source that is compared and one that is continued."""
        return Settings.model_validate(
            {
                "schedule": {},
                "storage": self.storage,
                "retention": {"configuration": "1d", "keep_verified": 1},
                "encryption": {
                    "key_management": "kms",
                    "kms_key_id": self.regions["us-west-2"].extra["kms_key_arn"],
                    "secondary_kms_key_id": self.regions["eu-central-1"].extra["kms_key_arn"],
                },
                "pipeline": {"spool": str(self.folder / "spool")},
                "sources": {
                    "configuration": {
                        "component": "configuration",
                        "engine": "filetree",
                        "options": {"parameters": [str(self.folder / "etc")]},
                    },
                    "logs": {
                        "component": "logs",
                        "engine": "logs",
                        "options": {"application": [str(self.folder / "log")]},
                    },
                },
                "access": {"incremental": incremental},
            }
        )

    def users(self, settings: Settings) -> dict[str, dict[str, Endpoint]]:
        """Make a user for each role and an administrator; return their endpoints by region."""
        policies = {str(one): for_emulator(identity.policy(one, settings)) for one in Role}
        policies[ADMINISTRATOR] = _EVERYTHING
        return {
            name: {
                region: self._user(name, policy, endpoint)
                for region, endpoint in self.regions.items()
            }
            for name, policy in policies.items()
        }

    def enforce(self) -> None:
        """From now on nothing is allowed that no policy allows."""
        for endpoint in self.regions.values():
            url = f"{endpoint.extra['endpoint_url']}/moto-api/reset-auth"
            plain = {"Content-Type": "text/plain"}  # as a form the number would not be seen
            request = urllib.request.Request(url, data=b"0", headers=plain)  # noqa: S310 - ours
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - as above
                assert answer.status == 200

    def runtime(self, user: Mapping[str, Endpoint], settings: Settings) -> Runtime:
        """Return a runtime whose every call is made with the credentials of `user`."""
        environ = {
            "AIRFLOW_CONN_US": connection(user["us-west-2"], "aws"),
            "AIRFLOW_CONN_EU": connection(user["eu-central-1"], "aws"),
        }
        return Runtime.build(settings, FileConnections(environ=environ))

    def _user(self, name: str, policy: Mapping[str, Any], endpoint: Endpoint) -> Endpoint:
        iam = client(endpoint, "iam")
        iam.create_user(UserName=name)
        iam.put_user_policy(UserName=name, PolicyName="role", PolicyDocument=json.dumps(policy))
        key = iam.create_access_key(UserName=name)["AccessKey"]
        return replace(endpoint, user=key["AccessKeyId"], password=key["SecretAccessKey"])


def client(endpoint: Endpoint, service: str) -> Any:
    """Return a boto3 client with the credentials of `endpoint`."""
    connections = FileConnections(environ={"AIRFLOW_CONN_IT": connection(endpoint, "aws")})
    region = str(endpoint.extra["region_name"])
    return connections.aws_client(service, region=region, connection_id="it")
