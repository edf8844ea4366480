"""Turn tables into files for readers."""
