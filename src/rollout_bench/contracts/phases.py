"""Steps and layers of an engine, in records of modes that look inside it."""

from typing import Literal

Phase = Literal["prefill", "decode", "mixed"]
"""Computation of a step: prompts, one token of each sequence, or both."""
