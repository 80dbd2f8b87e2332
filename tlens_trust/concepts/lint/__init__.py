"""Check a set of statements for faults that would mislead a probe."""
