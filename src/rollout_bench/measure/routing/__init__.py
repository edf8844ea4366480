"""The router of a rollout: assigns sequences to engines and distributes them."""
