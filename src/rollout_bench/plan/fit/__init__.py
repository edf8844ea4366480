"""Whether engines fit into the available memory."""
