"""One file a noun; a handler unwraps, calls, wraps."""
