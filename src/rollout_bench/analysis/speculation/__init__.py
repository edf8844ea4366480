"""Launches that decode speculatively: what drafting is worth, over the batch and in the tail of a step."""
