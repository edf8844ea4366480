"""Launches as jobs of Slurm and Kubernetes: their resources, owners and failures."""
