"""Measuring one launch: a room for each process, and one for the machine."""
