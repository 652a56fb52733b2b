"""Pages for people: whole in one answer, without a script, every text in them escaped."""
