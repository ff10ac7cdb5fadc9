# ruff: noqa: INP001 - a script that is run by its path
"""One-shot service `emulator-init`: buckets and KMS keys in both emulated regions.

Safe to repeat; the emulator keeps everything in memory, so it is run again with every `up`.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import boto3

BUCKETS = {"us-west-2": "neuroca-backups", "eu-central-1": "neuroca-dr-backups"}
KEY_ALIAS = "alias/neuroca-backup"


def client(service: str, region: str, endpoint: str) -> Any:
    """Return a client of `service` at the emulator; its credentials mean nothing elsewhere."""
    return boto3.client(
        service,
        region_name=region,
        endpoint_url=endpoint,
        aws_access_key_id="emulator",
        aws_secret_access_key="emulator",  # noqa: S106 - the emulator takes any word
    )


def prepare(region: str, endpoint: str) -> str:
    """Make the region's bucket (versioned) and key where they are missing; return the key's ARN."""
    s3 = client("s3", region, endpoint)
    bucket = BUCKETS[region]
    if bucket not in {found["Name"] for found in s3.list_buckets()["Buckets"]}:
        s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": region})
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})

    kms = client("kms", region, endpoint)
    pages = kms.get_paginator("list_aliases").paginate()
    if KEY_ALIAS not in {found["AliasName"] for page in pages for found in page["Aliases"]}:
        key_id = kms.create_key(Description="NCA backups")["KeyMetadata"]["KeyId"]
        kms.create_alias(AliasName=KEY_ALIAS, TargetKeyId=key_id)
    arn: str = kms.describe_key(KeyId=KEY_ALIAS)["KeyMetadata"]["Arn"]
    return arn


def main() -> None:
    """Prepare every region and print its key's ARN, which backup.yaml wants."""
    for region in BUCKETS:
        endpoint = os.environ.get("EMULATOR_ENDPOINT", "http://emulator-{region}:5000")
        sys.stdout.write(f"{region}: {prepare(region, endpoint.format(region=region))}\n")


if __name__ == "__main__":
    main()
