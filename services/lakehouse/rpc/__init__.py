"""gRPC to contracts and back: one client and one servicer a noun, one generic mapper."""
