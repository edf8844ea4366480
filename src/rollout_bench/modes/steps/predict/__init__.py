"""Prediction: the time of a step from its work, the engine's own scheduler without an engine, and what follows."""
