"""The query contract, direct and over gRPC."""
