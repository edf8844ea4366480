"""Figures of launches that look into the engine, and of what its probabilities are."""
