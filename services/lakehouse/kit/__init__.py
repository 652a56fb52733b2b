"""Small generic tools: clock, ids, retry, blocking calls, telemetry. No domain words in here."""
