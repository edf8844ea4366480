"""One start of an engine: what it finds, and what its time goes to."""
