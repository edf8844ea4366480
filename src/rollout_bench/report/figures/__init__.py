"""Figures: charts of plain values, colour-blind safe, the same bytes for the same records."""
