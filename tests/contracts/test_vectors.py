"""The vectors contract, called directly and over gRPC."""
