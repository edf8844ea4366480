"""Launches as jobs of Slurm and Kubernetes: what they ask for, who owns them, how they ended."""
