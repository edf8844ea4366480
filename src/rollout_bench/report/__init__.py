"""From tables to files that people read."""
