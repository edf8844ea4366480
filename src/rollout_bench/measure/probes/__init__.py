"""What runs inside vLLM's own workers."""
