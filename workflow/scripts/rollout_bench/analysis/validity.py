"""Which launches give numbers, and why the others do not: one with a flag of severity invalid is no result."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rollout_bench.records.record import Flag, Launched


def invalid_codes(flags: Iterable[Flag]) -> list[str]:
    """The codes of those of `flags` that make a launch invalid, each once; empty where it is valid."""
    return sorted({flag.code for flag in flags if flag.severity == "invalid"})


def no_valid_launch(records: Sequence[Launched]) -> str:
    """Why `records` give no number: `no valid launch: cpu_shared, token_count`.

    Empty where one of them is valid, and where there is none.
    """
    if not records or any(record.valid for record in records):
        return ""
    return f"no valid launch: {', '.join(invalid_codes(flag for record in records for flag in record.validity))}"
