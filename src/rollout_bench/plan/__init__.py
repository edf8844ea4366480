"""From a config to experiments and launches. Starts nothing."""
