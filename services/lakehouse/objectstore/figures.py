"""What the buckets of this process cost and how they fare, as figures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from lakehouse.kit.figures import Figure, Kind, Readout
from lakehouse.objectstore.buckets import Buckets

_BUCKET: Final = ("bucket",)
_REQUESTS: Final = Figure(
    "lakehouse_bucket_requests",
    Kind.COUNTER,
    "requests to a bucket, failed ones too, as its store bills them",
    ("bucket", "op"),
)
_BYTES: Final = Figure(
    "lakehouse_bucket_bytes", Kind.COUNTER, "bytes to and from a bucket", ("bucket", "direction")
)


class BucketFigures:
    """Asks the buckets that there are now."""

    def __init__(self, buckets: Buckets) -> None:
        self._buckets = buckets

    def figures(self) -> Iterator[Readout]:
        requests: dict[tuple[str, ...], float] = {}
        volume: dict[tuple[str, ...], float] = {}
        for name in self._buckets.names():
            seen = self._buckets.footprint(name)
            for op, count in seen.requests.items():
                requests[(name, op)] = count
            volume[(name, "read")] = seen.bytes_read
            volume[(name, "written")] = seen.bytes_written
        yield _REQUESTS, requests
        yield _BYTES, volume
