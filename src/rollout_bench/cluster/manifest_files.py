"""The folder of manifests: a Job for each missing launch and what it needs, one Job for all launches of endpoints."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rollout_bench.cluster.launcher import launcher
from rollout_bench.cluster.manifests import Parts, claim, collector, job, job_name, specs_of
from rollout_bench.core.errors import UserError
from rollout_bench.core.files import write_whole
from rollout_bench.plan.schedule import Schedule

HEADER = "# Written by `snakemake kubernetes_manifests`, which replaces or removes it when it is asked again.\n"
"""The first line of every file of ours; a file without it is somebody else's."""

SPECS = "000000-specs.yaml"
COLLECTOR = Path("collector") / "pod.yaml"
"""In a folder of its own, where `kubectl apply -f results/manifests` does not look."""

CLAIM = Path("claim") / "claim.yaml"
"""In one, too: who deletes what the folder above made keeps the results."""

LAUNCHER = "launcher.yaml"
"""Measures all endpoints."""


def manifests(plan: Schedule, records: Iterable[str], merged: Mapping[str, Any]) -> dict[str, str]:
    """File name -> content of everything that measures the launches of `records`.

    The names begin with a launch's place among all of the config's, so that `kubectl apply` of the folder makes the
    Jobs in the order they are to run, and a launch keeps its file when others are measured.

    Args:
        plan: all launches.
        records: of those to be measured.
        merged: the config that the plan is of, as it was read.

    Raises:
        UserError: a setting that is missing or can't be, by the key's name.
    """
    wanted = sorted((plan.by_record[record] for record in records), key=lambda found: found[0])
    if not wanted:
        return {}
    config = plan.config
    if config.kubernetes.image is None:
        raise UserError(
            "config: kubernetes.image: is not set",
            "name the image that was built from containers/, with its tag: docs/how-to/kubernetes.md",
        )
    files = {}
    own = [(place, launch) for place, launch in wanted if launch.experiment.spec.endpoint is None]
    experiments = {launch.experiment.name: launch.experiment for _, launch in own}
    if experiments:
        files[SPECS] = _text(*(specs_of(each, config.kubernetes.namespace) for each in experiments.values()))
    for place, launch in own:
        files[f"{place + 1:06d}-{job_name(launch.experiment.spec, launch.index)}.yaml"] = _text(job(launch, config))
    if config.kubernetes.make_claim is not None:
        files[str(CLAIM)] = _text(claim(config, config.kubernetes.make_claim))
    if len(own) < len(wanted):
        of_endpoints = [found for found in plan.launches if found.experiment.spec.endpoint is not None]
        files[LAUNCHER] = _text(*launcher(of_endpoints, config, merged))
    return {**files, str(COLLECTOR): _text(collector(config))}


class _Dumper(yaml.CSafeDumper):
    """Writes texts so that every reader takes them for text: a key like 1234e567 is a number to YAML 1.2."""

    def ignore_aliases(self, data: Any) -> bool:
        """Return always: two parts that are one object are written twice."""
        return True


def _quoted(dumper: yaml.CSafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else '"' if re.match(r"[0-9.+-]", text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _quoted)


def _text(*documents: Parts) -> str:
    return HEADER + yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, width=120)


@dataclass(frozen=True)
class Changes:
    """Names of the files that were written since they were missing or said something else, and that were removed."""

    written: list[str]
    removed: list[str]


def put(folder: Path, files: Mapping[str, str]) -> Changes:
    """Make `folder` hold `files` (path in it -> content); a file that says this already is not touched.

    Files there that begin with our header and are not among `files` are removed, and nothing else is.

    Raises:
        UserError: the folder can't be written, or somebody else's file has the name of one of ours.
    """
    removed = []
    try:
        present = {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*.yaml"))}
        foreign = next((name for name in files if not present.get(name, HEADER).startswith(HEADER)), None)
        if foreign is not None:
            raise UserError(f"{folder / foreign}: was changed or is not of this workflow", "move it away")
        for name, text in present.items():
            if name not in files and text.startswith(HEADER):
                (folder / name).unlink()
                removed.append(name)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{folder}: cannot be read or written: {error}", "check owner and permissions") from None
    written = [name for name, text in files.items() if present.get(name) != text]
    for name in written:
        write_whole(folder / name, files[name].encode())
    return Changes(written, removed)
