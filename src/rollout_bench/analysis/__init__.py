"""From records to tables: no engine, no text for people."""
