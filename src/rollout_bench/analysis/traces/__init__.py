"""Traces of a profiled engine to one table of events, and each event to what it is for."""
