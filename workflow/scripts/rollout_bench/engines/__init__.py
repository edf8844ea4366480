"""The engine side: needs only the standard library and what vLLM itself installs."""
