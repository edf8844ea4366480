"""The state of this call of Snakemake: whether its run has begun, its results, and its end by an error of the user."""

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from rollout_bench.core.errors import UserError
from rollout_bench.core.locks import locked
from rollout_bench.plan.results_state import ResultsState

HELD: list[contextlib.ExitStack] = []
"""Holder of the lock on the results folder, from the beginning of a run until its process ends."""


def hold_results(results: Path) -> None:
    """Lock the folder `results`, so that the run begins; raise `UserError` if another run holds it."""
    lock = contextlib.ExitStack()
    lock.enter_context(locked(results, "wait until it ends, or work in another folder"))
    HELD.append(lock)


def has_begun() -> bool:
    """Return whether the run of this call has begun: a dry run never does, nor does a job on a cluster."""
    return bool(HELD)


def results_now(at_start: ResultsState) -> ResultsState:
    """Return the state of the results now, from the one at the start of this call.

    What is measured again is missing anyway once the run has begun, because it has moved these records away.
    """
    return replace(at_start, again=frozenset() if has_begun() else at_start.again)


@contextlib.contextmanager
def stopping() -> Iterator[None]:
    """End Snakemake with the two lines of a `UserError`, and exit status 1; also a decorator of functions."""
    try:
        yield
    except UserError as error:
        print(error, file=sys.stderr, flush=True)
        sys.exit(1)
