"""Launches as jobs of a cluster: what they ask for, who runs them, and how those ended that left no word."""
