"""Figures: 16:9, colour-blind safe, the same bytes for the same records."""
