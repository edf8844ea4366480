"""Probabilities that engines give one sequence of tokens: what mode drift compares."""
