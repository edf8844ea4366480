"""Mode placement: a controller, and the ranks that it starts, one for each device: they generate, train, or do both."""
