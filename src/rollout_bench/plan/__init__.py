"""Turn a config into experiments and launches, without starting any."""
