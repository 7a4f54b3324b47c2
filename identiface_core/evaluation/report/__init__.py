"""The report of a benchmark: every number from its JSON."""
