"""Mode placement: a rank for each device; ranks generate, train, or both."""
