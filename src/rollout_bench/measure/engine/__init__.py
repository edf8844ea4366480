"""The engine's process: a module for each mode. Needs only what vLLM installs."""
