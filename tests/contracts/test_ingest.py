"""The ingest contract, direct and over gRPC."""
