"""Conversion of a trainer's settings into a config of rollout-bench."""
