"""The workload: lengths, data sets, and the requests of a pass."""
