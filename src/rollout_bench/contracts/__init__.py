"""Data that processes and stages exchange: settings, specs, records, and their paths."""
