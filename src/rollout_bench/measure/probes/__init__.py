"""Code that runs inside vLLM's own workers."""
