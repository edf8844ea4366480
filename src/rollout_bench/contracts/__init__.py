"""What processes and stages hand to one another: settings, specs, records, and where they lie."""
