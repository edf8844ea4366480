"""Which devices of a machine a launch may use, and that nobody else uses them meanwhile."""
