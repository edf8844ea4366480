"""Figures for slides: 16:9, readable from the last row, colour-blind safe, the same bytes for the same records."""
