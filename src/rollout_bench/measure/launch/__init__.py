"""The measuring process: starts the engine, listens to it, ends it, writes the record."""
