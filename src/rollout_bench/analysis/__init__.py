"""Turn records into tables, without an engine and without text for readers."""
