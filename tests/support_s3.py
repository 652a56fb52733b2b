"""S3 places for tests: a bucket on some server, and another SDK's view of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config

from lakehouse.kit.clock import SystemClock
from lakehouse.kit.ids import SystemIds
from lakehouse.objectstore.buckets import BucketSettings, S3Credentials

_IDS = SystemIds(SystemClock())


@dataclass(frozen=True)
class S3Place:
    """A bucket on a server and a prefix in it that nobody else uses."""

    endpoint: str
    access_key: str
    secret_key: str
    bucket: str
    prefix: str

    def settings(self) -> BucketSettings:
        return BucketSettings(
            name="s3",
            url=f"s3://{self.bucket}/{self.prefix}",
            endpoint=self.endpoint,
            credentials=S3Credentials(self.access_key, self.secret_key),
        )

    def client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}),
        )


class S3Oracle:
    """The other SDK's view of a place."""

    def __init__(self, place: S3Place) -> None:
        self._place = place
        self._client = place.client()

    def read(self, key: str) -> bytes | None:
        path = f"{self._place.prefix}/{key}"
        try:
            answer = self._client.get_object(Bucket=self._place.bucket, Key=path)
        except self._client.exceptions.NoSuchKey:
            return None
        body: bytes = answer["Body"].read()
        return body

    def keys(self) -> list[str]:
        root = self._place.prefix + "/"
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._place.bucket, Prefix=root
        )
        return [entry["Key"][len(root) :] for page in pages for entry in page.get("Contents", [])]

    def uploads(self) -> list[str]:
        answer = self._client.list_multipart_uploads(Bucket=self._place.bucket)
        root = self._place.prefix + "/"
        keys = [entry["Key"] for entry in answer.get("Uploads", [])]
        return [key[len(root) :] for key in keys if key.startswith(root)]

    def close(self) -> None:
        self._client.close()


def new_place(endpoint: str, access_key: str, secret_key: str) -> S3Place:
    """A new bucket there."""
    token = _IDS.token(6)
    place = S3Place(endpoint, access_key, secret_key, f"conformance-{token}", "deep/ er")
    client = place.client()
    client.create_bucket(Bucket=place.bucket)
    client.close()
    return place


def place_of_environment() -> S3Place:
    """A new bucket on the server that ``tools/s3_server.py`` started."""
    names = ("ENDPOINT", "ACCESS_KEY", "SECRET_KEY")
    found = [os.environ.get(f"LAKEHOUSE_TEST_S3_{name}", "") for name in names]
    assert all(found), "set LAKEHOUSE_TEST_S3_*, or run: tools/s3_server.py --run pytest -m s3"
    return new_place(*found)
