"""Launches that look into the engine: profiles and linear layers alone."""
