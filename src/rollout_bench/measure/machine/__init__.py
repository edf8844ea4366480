"""Devices and host: inventory, leases, readings during a launch, and limits."""
