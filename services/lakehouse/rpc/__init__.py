"""gRPC to contracts and back: one client and one servicer a noun, one generic mapper."""

import os

# The C core writes to standard error by itself: a peer that stops is a line there, and our error.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
