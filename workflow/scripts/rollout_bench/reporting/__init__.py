"""From tables to files that people read: Markdown, text, CSV, figures."""
