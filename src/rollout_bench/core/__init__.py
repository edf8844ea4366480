"""Errors, files and processes: what every room stands on."""
