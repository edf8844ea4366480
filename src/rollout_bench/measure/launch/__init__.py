"""The measuring process: starts the engine, reads its events, ends it and writes the record."""
