"""Whether engines fit into the memory that is there."""
