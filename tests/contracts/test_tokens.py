"""The tokens contract, direct and over gRPC."""
