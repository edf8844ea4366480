"""Probabilities that different engines give the same tokens, for mode drift."""
