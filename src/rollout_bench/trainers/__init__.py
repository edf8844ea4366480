"""A trainer's own settings, turned into a config of rollout-bench."""
