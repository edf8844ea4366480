"""From records to tables: pure functions, no engine."""
