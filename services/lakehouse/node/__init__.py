"""The composition root: config, roles, wiring, servers, lifecycle."""
