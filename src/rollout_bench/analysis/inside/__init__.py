"""Launches that look into the engine: profiles, messages and drift."""
