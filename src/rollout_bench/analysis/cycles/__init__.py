"""Costs of a training step besides generation, and the sequence lengths at which a quantization pays."""
