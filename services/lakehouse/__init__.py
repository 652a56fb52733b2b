"""The lakehouse: every durable byte in S3-compatible buckets, served through one gateway."""

__version__ = "0.1.0"
