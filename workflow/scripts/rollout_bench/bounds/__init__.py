"""The least time that a machine needs for a workload: bytes over bandwidth, operations over their rate."""
