"""Servers and the requests to them; runs in the engine's process."""
