"""The catalog contract, direct and over gRPC."""
