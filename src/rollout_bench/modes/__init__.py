"""The modes, a folder each: see `contracts.mode.Mode`."""

ORDER = ("offline", "online", "rollout", "cycle", "placement", "startup", "profile", "messages", "drift", "steps")
"""Their order in all lists."""
