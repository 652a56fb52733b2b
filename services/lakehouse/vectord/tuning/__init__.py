"""Eval sets, trials in the log ``_trials/``, and the settings that come of them (ADR-018)."""
