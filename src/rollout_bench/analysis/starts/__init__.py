"""Costs of an engine's start, by phase."""
