"""Every number of a summary: its name, its definition, and its parts in the iterations of a launch."""
