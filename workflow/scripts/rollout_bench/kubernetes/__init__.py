"""Launches on Kubernetes without a plugin: manifests to apply, and records brought home. No cluster is asked."""
