"""The modes: a folder for each, with its worker in the engine's process, its record and its checks."""
