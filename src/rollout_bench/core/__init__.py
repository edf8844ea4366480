"""Errors, files and processes, which all other packages use."""
