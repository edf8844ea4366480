"""Figures of launches in the modes profile, messages and drift."""
