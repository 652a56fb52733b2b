"""AWS Secrets Manager as a place of a bucket's keys, on moto."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import SystemClock
from lakehouse.kit.ids import SystemIds
from lakehouse.kit.secrets import concealed
from lakehouse.objectstore.buckets import Buckets, BucketSettings
from lakehouse.objectstore.secrets_manager import all_secrets
from lakehouse.objectstore.settings import SecretsSettings
from support_s3 import S3Place

CLOCK = SystemClock()
IDS = SystemIds(CLOCK)
KEYS = {"access_key_id": "moto", "secret_access_key": "canary-of-moto"}


@pytest.fixture(autouse=True)
def identity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "machine")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "machine-secret")
    monkeypatch.delenv("AWS_REGION", raising=False)
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")


@pytest.fixture
def manager(moto_endpoint: str) -> Iterator[Any]:
    client = boto3.client("secretsmanager", endpoint_url=moto_endpoint, region_name="eu-west-1")
    yield client
    client.close()


def settings(endpoint: str) -> SecretsSettings:
    return SecretsSettings(secrets_endpoint=endpoint, secrets_region="eu-west-1")


def test_by_name_by_arn_and_by_member(manager: Any, moto_endpoint: str) -> None:
    name = f"lakehouse/{IDS.ulid()}"
    made = manager.create_secret(Name=name, SecretString=json.dumps(KEYS))
    secrets = all_secrets({}, settings(moto_endpoint))
    assert json.loads(secrets.resolve(f"aws-sm:{name}").reveal()) == KEYS
    assert secrets.resolve(f"aws-sm:{name}#access_key_id").reveal() == "moto"
    # The region of an ARN goes before the configured one.
    elsewhere = all_secrets({}, SecretsSettings(moto_endpoint, "us-east-1"))
    assert json.loads(elsewhere.resolve(f"aws-sm:{made['ARN']}").reveal()) == KEYS
    manager.put_secret_value(SecretId=name, SecretString='{"a": {"b": 1}}')
    assert secrets.resolve(f"aws-sm:{name}#a").reveal() == '{"b": 1}'
    manager.put_secret_value(SecretId=name, SecretBinary=b"bytes")
    assert secrets.resolve(f"aws-sm:{name}").reveal() == "bytes"


def test_where_nothing_is_said_what_aws_tools_say_holds(
    manager: Any, moto_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = IDS.ulid()
    manager.create_secret(Name=name, SecretString="plain-text")
    secrets = all_secrets({})
    with pytest.raises(LakehouseError) as caught:
        secrets.resolve(f"aws-sm:{name}")
    assert caught.value.kind is ErrorKind.FORBIDDEN
    assert "AWS_REGION" in str(caught.value.fields["hint"])
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", moto_endpoint)
    assert all_secrets({}).resolve(f"aws-sm:{name}").reveal() == "plain-text"


def test_errors_are_ours_and_show_nothing(manager: Any, moto_endpoint: str) -> None:
    name = IDS.ulid()
    manager.create_secret(Name=name, SecretString="canary-text")
    here = all_secrets({}, settings(moto_endpoint))
    nobody = all_secrets({}, settings("http://127.0.0.1:9"))
    for secrets, ref, kind in (
        (here, "aws-sm:no-such-secret", ErrorKind.NOT_FOUND),
        (here, f"aws-sm:{name}#member", ErrorKind.INVALID),
        (here, "aws-sm:", ErrorKind.INVALID),
        (nobody, f"aws-sm:{name}", ErrorKind.UNAVAILABLE),
    ):
        with pytest.raises(LakehouseError) as caught:
            secrets.resolve(ref)
        assert caught.value.kind is kind, ref
        assert "canary" not in f"{caught.value} {caught.value.fields} {caught.value.__cause__}"


async def test_a_bucket_by_such_a_reference(
    manager: Any, moto_endpoint: str, moto_place: S3Place
) -> None:
    name = IDS.ulid()
    manager.create_secret(Name=name, SecretString=json.dumps({"s3": KEYS, "other": 1}))
    bucket = BucketSettings(
        "tenant",
        f"s3://{moto_place.bucket}/t",
        moto_endpoint,
        secret_ref=f"aws-sm:{name}#s3",
    )
    secrets = all_secrets({}, settings(moto_endpoint))
    buckets = Buckets([bucket], CLOCK, IDS, secrets=secrets)
    await buckets.get("tenant").put("key", b"x")
    assert await buckets.get("tenant").get("key") == b"x"
    assert "canary-of-moto" in concealed()
    await buckets.close()
