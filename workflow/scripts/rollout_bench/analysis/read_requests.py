"""Reads the side files of online launches, each once: all that is said of their requests comes from here."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rollout_bench.analysis.experiments import Collection, Experiment, launched
from rollout_bench.errors import UserError
from rollout_bench.records.online import ServerSample
from rollout_bench.records.side_files import read_samples, read_sequences
from rollout_bench.records.store import record_path, sequences_path, server_path


def with_requests(results: Path, experiments: Sequence[Experiment]) -> tuple[Experiment, ...]:
    """`experiments` of `results`, the online ones with the requests of their launches, or why a launch has none."""
    return tuple(_read(results, e) if e.mode == "online" and e.records else e for e in experiments)


def read_servers(results: Path, collection: Collection) -> dict[tuple[str, int], list[ServerSample]]:
    """What servers said of themselves, by the place of what was launched and launch index.

    A launch whose side file is missing or damaged has none.
    """
    found = {}
    for experiment in launched(collection.experiments):
        for record in experiment.records:
            path = server_path(record_path(results, experiment.mode, experiment.experiment, record.launch))
            if record.server_file is not None:
                with contextlib.suppress(UserError):
                    found[experiment.place, record.launch] = read_samples(path, record)
    return found


def _read(results: Path, experiment: Experiment) -> Experiment:
    # Not at the top: where nothing is online, nothing here needs numpy.
    from rollout_bench.analysis.requests import requests_of

    found, unread = {}, []
    for record in experiment.records:
        path = sequences_path(record_path(results, experiment.mode, experiment.experiment, record.launch))
        try:
            found[record.launch] = requests_of(record, read_sequences(path, record))
        except UserError as error:
            unread.append(f"launch {record.launch} is not among them, {error.problem}")
    return replace(experiment, requests=found, unread=tuple(unread))
