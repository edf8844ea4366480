"""Mode placement: a controller and its ranks, one for each device; ranks generate, train, or both."""
