"""Synthetic checkpoints: real architectures with random weights, in every weight format."""
