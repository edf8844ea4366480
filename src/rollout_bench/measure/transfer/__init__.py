"""A trainer in a separate process that sends weights to an engine through vLLM's own weight transfer."""
