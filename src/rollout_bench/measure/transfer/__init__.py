"""A trainer in a process of its own, which gives an engine its weights through vLLM's own weight transfer."""
