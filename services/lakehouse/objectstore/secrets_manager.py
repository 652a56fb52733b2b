"""AWS Secrets Manager as a place of secrets: ``aws-sm:name-or-arn[#json-key]``."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any, Final

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.secrets import EnvironmentSecrets, FileSecrets, SchemeSecrets, Secret
from lakehouse.objectstore.settings import SecretsSettings

_SCHEME: Final = "aws-sm:"
_AS_AWS_TOOLS: Final = SecretsSettings()
_CONNECT_SECONDS: Final = 3
_READ_SECONDS: Final = 5
_ATTEMPTS: Final = 3
_GONE: Final = frozenset({"ResourceNotFoundException", "InvalidRequestException"})
_BUSY: Final = frozenset({"ThrottlingException", "InternalServiceError", "ServiceUnavailable"})


class AwsSecrets:
    """Answers with the current version of a secret; binary ones must be UTF-8.

    With ``#json-key`` the secret is a JSON object, and the answer its member of that name (a text,
    or JSON of what else it is). The identity is that of the machine (``AWS_*``, profile, instance).
    """

    def __init__(self, settings: SecretsSettings) -> None:
        self._settings = settings
        self._clients: dict[str, Any] = {}
        self._lock = threading.Lock()

    def resolve(self, secret_ref: str) -> Secret:
        name, _, member = secret_ref.removeprefix(_SCHEME).partition("#")
        parts = name.split(":")
        region = parts[3] if parts[0] == "arn" and len(parts) > 3 else ""
        text = self._ask(name, region or self._settings.secrets_region)
        return Secret(_member(text, member) if member else text)

    def _ask(self, name: str, region: str) -> str:
        import botocore.exceptions

        try:
            answer = self._client(region).get_secret_value(SecretId=name)
        except botocore.exceptions.ClientError as error:
            code = str(error.response["Error"].get("Code", ""))
            status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
            # The text of the server stays behind: it may repeat what it was sent.
            raise _answered(code, status) from None
        except (
            botocore.exceptions.NoCredentialsError,
            botocore.exceptions.PartialCredentialsError,
            botocore.exceptions.NoRegionError,
        ) as error:
            raise LakehouseError(
                ErrorKind.FORBIDDEN,
                "aws secrets manager cannot be asked: there is no identity or no region",
                reason=type(error).__name__,
                hint="set AWS_REGION or storage.secrets_region, and the machine's AWS identity",
            ) from None
        except (botocore.exceptions.ParamValidationError, ValueError) as error:
            raise LakehouseError(
                ErrorKind.INVALID,
                "aws secrets manager does not take this name",
                reason=type(error).__name__,
            ) from None
        except botocore.exceptions.BotoCoreError as error:
            raise LakehouseError(
                ErrorKind.UNAVAILABLE,
                "aws secrets manager does not answer",
                reason=type(error).__name__,
            ) from None
        if "SecretString" in answer:
            return str(answer["SecretString"])
        try:
            return bytes(answer["SecretBinary"]).decode()
        except UnicodeDecodeError:
            raise LakehouseError(ErrorKind.INVALID, "the secret is not text") from None

    def _client(self, region: str) -> Any:
        # Half a second to import, and only where a reference leads here.
        import boto3
        from botocore.config import Config

        with self._lock:
            if region not in self._clients:
                self._clients[region] = boto3.Session().client(
                    "secretsmanager",
                    region_name=region or None,
                    endpoint_url=self._settings.secrets_endpoint or None,
                    config=Config(
                        connect_timeout=_CONNECT_SECONDS,
                        read_timeout=_READ_SECONDS,
                        retries={"total_max_attempts": _ATTEMPTS, "mode": "standard"},
                    ),
                )
            return self._clients[region]


def all_secrets(
    environ: Mapping[str, str], settings: SecretsSettings = _AS_AWS_TOOLS
) -> SchemeSecrets:
    """``env:``, ``file:`` and ``aws-sm:``."""
    return SchemeSecrets(
        {
            "env": EnvironmentSecrets(environ),
            "file": FileSecrets(),
            "aws-sm": AwsSecrets(settings),
        }
    )


def _answered(code: str, status: int) -> LakehouseError:
    if code in _GONE:
        kind, message = ErrorKind.NOT_FOUND, "aws secrets manager has no such secret"
    elif code in _BUSY or status >= 500 or status == 429:
        kind, message = ErrorKind.UNAVAILABLE, "aws secrets manager failed"
    elif code == "ValidationException":
        kind, message = ErrorKind.INVALID, "aws secrets manager does not take this name"
    else:
        kind, message = ErrorKind.FORBIDDEN, "aws secrets manager refused the request"
    return LakehouseError(kind, message, code=code)


def _member(text: str, name: str) -> str:
    try:
        found = json.loads(text)[name]
    except (ValueError, TypeError, KeyError, IndexError):
        raise LakehouseError(
            ErrorKind.INVALID, "the secret is no JSON object with this member", member=name[:80]
        ) from None
    return found if isinstance(found, str) else json.dumps(found)
