"""Traces of a profiled engine to one table of events, and each event to what it is for.

Read a launch's traces with `reading.read_traces`, keep the table with `events.write_events` and `events.read_events`,
tell what events are for with `categories.categorise`, add up steps with `times.step_times`, and list what no rule knows
with `times.unknown`. The table's columns are in `events.COLUMNS` and in docs/reference/traces.md.
"""
