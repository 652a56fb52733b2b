"""Conversations as datasets of turns: remembered, recalled, caught up with."""
