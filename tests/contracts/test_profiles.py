"""The profiles contract, called directly and over gRPC."""
