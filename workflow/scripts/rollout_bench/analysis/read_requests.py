"""Reads the side files of online launches, each once: all that is said of their requests comes from here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rollout_bench.analysis.experiments import Collection, Experiment, launched
from rollout_bench.records.online import ServerSample
from rollout_bench.records.store import read_samples, read_sequences, record_path, sequences_path, server_path


def with_requests(results: Path, experiments: Sequence[Experiment]) -> tuple[Experiment, ...]:
    """`experiments` of `results`, the online ones with the requests of their launches.

    Raises:
        UserError: a side file is damaged; the message names file and line.
    """
    return tuple(_read(results, e) if e.mode == "online" and e.records else e for e in experiments)


def read_servers(results: Path, collection: Collection) -> dict[tuple[str, int], list[ServerSample]]:
    """What servers said of themselves, by the place of what was launched and launch index; raises as `with_requests`.

    A launch whose side file is missing has none.
    """
    return {
        (experiment.place, record.launch): read_samples(path)
        for experiment in launched(collection.experiments)
        for record in experiment.records
        if record.server_file is not None
        for path in (server_path(record_path(results, experiment.mode, experiment.experiment, record.launch)),)
        if path.is_file()
    }


def _read(results: Path, experiment: Experiment) -> Experiment:
    # Not at the top: where nothing is online, nothing here needs numpy.
    from rollout_bench.analysis.requests import requests_of

    found, unread = {}, []
    for record in experiment.records:
        path = sequences_path(record_path(results, experiment.mode, experiment.experiment, record.launch))
        if not path.is_file():
            unread.append(f"launch {record.launch} is not among them, its side file {path.name} is missing")
            continue
        requests = requests_of(record, read_sequences(path))
        expected = sum(iteration.requests for iteration in record.iterations if not iteration.warmup)
        if requests.iteration.size != expected:
            have = requests.iteration.size
            unread.append(f"launch {record.launch} is not among them, {path.name} has {have} of {expected} rows")
        else:
            found[record.launch] = requests
    return replace(experiment, requests=found, unread=tuple(unread))
