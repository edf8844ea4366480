"""Measuring one launch: a folder for each process, and one for the machine."""
