"""What vLLM's issue 6241 measured in July 2024, and the same steps today.

https://github.com/vllm-project/vllm/issues/6241: facebook/opt-125m, tensor_parallel_size 2, 4 prompts, temperature 0.8,
top_p 0.95, 16 steps; pickled input and output of the worker in each step, and their Levenshtein distances to the step
before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rollout_bench.analysis.inside.message_links import MessagesRun, of_link, sent_bytes
from rollout_bench.contracts.messages import Link, MessageRow

PROMPTS = 4
STEPS = 16

PICKLED_SAMPLING_PARAMETERS_BYTES = 611
"""len(pickle.dumps(SamplingParams())) of the issue's first comment."""


@dataclass(frozen=True)
class Exchange:
    """What goes to the workers and back in a step, in bytes; distances to the step before, None in the first."""

    input_bytes: int
    output_bytes: int
    input_distance: int | None
    output_distance: int | None


THEN = tuple(
    Exchange(*row)
    for row in (
        (2616, 610, None, None),
        (2640, 601, 93, 49),
        (2660, 603, 44, 33),
        (2678, 603, 39, 35),
        (2696, 603, 39, 34),
        (2714, 605, 40, 45),
        (2734, 605, 38, 38),
        (2754, 605, 42, 37),
        (2774, 605, 41, 34),
        (2800, 603, 43, 37),
        (2818, 601, 39, 35),
        (2852, 605, 55, 37),
        (2872, 607, 41, 44),
        (2894, 605, 43, 45),
        (2914, 601, 42, 36),
        (2930, 609, 37, 42),
    )
)
"""The issue's output, a row for each step."""


def exchanges(run: MessagesRun, batch: int) -> Iterator[Exchange]:
    """Yield each step of the first launch's pass for contents at `batch`: sums over the step's messages."""
    for _, rows in run.launches[0].steps("contents", batch):
        there, back = (of_link(link, rows) for link in ENDS)
        yield Exchange(_bytes(there), _bytes(back), _distance(there), _distance(back))


ENDS: tuple[Link, Link] = ("core_to_workers", "workers_to_core")


def repeats_issue(run: MessagesRun) -> bool:
    """Return whether `run` has looked into as many steps of as many sequences as the issue."""
    return len(run.launches[0].steps("contents", PROMPTS)) == STEPS


def _bytes(rows: list[MessageRow]) -> int:
    return sum(sent_bytes(row) or 0 for row in rows)


def _distance(rows: list[MessageRow]) -> int | None:
    known = [row.content.distance for row in rows if row.content is not None and row.content.distance is not None]
    return sum(known) if known else None
