"""Launches that start an engine and stop: what a start costs, and which part."""
