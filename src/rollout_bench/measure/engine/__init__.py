"""The engine's process: a module for each mode; it needs only packages that vLLM installs."""
