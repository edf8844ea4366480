"""Devices and host: what there is, who holds it, what it does meanwhile, what it can do."""
