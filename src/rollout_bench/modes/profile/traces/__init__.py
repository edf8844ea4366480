"""Read traces of a profiled engine into one table of events, and categorise each event."""
