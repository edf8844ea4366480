"""Launches that generate: throughput, latency, comparisons."""
