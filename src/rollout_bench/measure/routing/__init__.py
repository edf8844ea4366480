"""The router of a rollout: who gets which sequence, and how they are handed out."""
