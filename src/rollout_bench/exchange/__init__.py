"""Export of results in the formats of other tools."""
