"""One start of an engine: the state of caches and files, and the time of its phases."""
