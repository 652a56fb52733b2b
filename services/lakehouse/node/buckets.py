"""The configured buckets of a node, and the secrets it has."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final

from lakehouse.errors import LakehouseError
from lakehouse.kit.clock import Clock
from lakehouse.kit.ids import Ids
from lakehouse.kit.secrets import local_secrets
from lakehouse.model.refs import PRIMARY
from lakehouse.node.config import Config, bucket_class_of
from lakehouse.objectstore.buckets import Buckets, BucketSettings
from lakehouse.objectstore.credentials import parse_credentials
from lakehouse.objectstore.failures import FailureSink, NoSink
from lakehouse.objectstore.secrets_manager import all_secrets

_NO_SINK: Final = NoSink()


def open_buckets(
    config: Config, clock: Clock, ids: Ids, failures: FailureSink = _NO_SINK
) -> Buckets:
    """The configured buckets; nothing is contacted and no secret resolved yet."""
    settings = [
        BucketSettings(
            name=name,
            url=entry.url,
            endpoint=entry.endpoint,
            region=entry.region,
            bucket_class=bucket_class_of(name, entry),
            residency=entry.residency,
            secret_ref=entry.secret_ref,
            attempt_seconds=entry.attempt_seconds,
            in_flight_max=entry.in_flight_max,
        )
        for name, entry in config.buckets.items()
    ]
    secrets = all_secrets(os.environ, config.secrets)
    return Buckets(settings, clock, ids, failures, config.resilience, secrets)


def live_secrets(config: Config) -> frozenset[str]:
    """What no log line may contain, as far as it can be known at the start; what is resolved later
    is concealed then.

    Raises what the resolving of the primary's secret or of the node's own raises: without them
    nothing goes. Other buckets are only as good as their secrets.
    """
    own = config.node.secret_ref
    texts = [all_secrets(os.environ, config.secrets).resolve(own).reveal()] if own else []
    secrets = local_secrets(os.environ)
    for name, entry in config.buckets.items():
        if entry.secret_ref.partition(":")[0] == "aws-sm" or not entry.secret_ref:
            continue
        with suppress(*([] if name == PRIMARY else [LakehouseError])):
            keys = parse_credentials(secrets.resolve(entry.secret_ref), name)
            texts += [keys.secret_access_key, keys.session_token]
    return frozenset(text for text in texts if text)
