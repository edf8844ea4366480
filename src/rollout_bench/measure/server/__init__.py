"""Servers and the requests to them. Runs in the engine's process."""
