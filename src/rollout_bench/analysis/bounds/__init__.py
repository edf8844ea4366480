"""The least time that a machine needs for a workload."""
