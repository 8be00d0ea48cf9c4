"""Exercise set 12: from the cache and the clock of one server to machines, dollars and a choice."""
