"""The storage contract, direct and over gRPC."""
