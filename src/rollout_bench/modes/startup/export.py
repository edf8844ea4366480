"""The phases of a start in a benchmark report."""

from collections.abc import Sequence
from typing import Any

from rollout_bench.contracts.record import Record
from rollout_bench.exchange.benchmark_report import known_statistics
from rollout_bench.modes.startup.record import start_phases


def more_of(records: Sequence[Record]) -> dict[str, Any]:
    """Return the statistics of the phases of the starts of `records`."""
    courses = [course for record in records if (course := start_phases(record)) is not None]
    phases = dict.fromkeys(phase.name for course in courses for phase in course.phases)
    start = {
        "phases": known_statistics({name: ([course.phase_s(name) for course in courses], "s") for name in phases}),
        **known_statistics(
            {
                "rest": ([course.rest_s for course in courses], "s"),
                "until_first_token": ([course.until_token_s for course in courses], "s"),
                "weights": ([course.weights_bytes for course in courses], "bytes"),
            }
        ),
    }
    return {"engine_start": start if courses else None}
