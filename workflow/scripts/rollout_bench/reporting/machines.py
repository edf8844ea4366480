"""Where the launches ran, and in what their environments differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from rollout_bench.analysis.experiments import Experiment, Selected, launched
from rollout_bench.analysis.facts import environment_facts
from rollout_bench.records.record import Environment, Launched
from rollout_bench.reporting.numbers import several


def machine_lines(experiments: Sequence[Experiment]) -> Iterator[str]:
    """For each mode and platform a line on the commonest environment, then one for each fact that differs."""
    experiments = launched(experiments)
    for mode, platform in dict.fromkeys((e.mode, e.platform) for e in experiments):
        environments = [
            record.environment
            for experiment in experiments
            if (experiment.mode, experiment.platform) == (mode, platform)
            for record in experiment.records
        ]
        if environments:
            yield f"{mode}, {platform}: {_describe(_commonest(environments))}"
            for text in differences(environments):
                yield f"{mode}, {platform}: launches differ in {text}"


def extent(experiments: Sequence[Experiment]) -> str:
    """How many launches of how many experiments, at least one of each, and when the first and the last started."""
    experiments = launched(experiments)
    began = sorted(record.started_at for experiment in experiments for record in experiment.records)
    text = f"{several(len(began), 'launch')} of {several(len(experiments), 'experiment')}"
    return f"{text}, started {began[0]} to {began[-1]}"


def hardware(experiments: Sequence[Selected[Launched]]) -> str:
    """The engines and devices in a few words, for a figure: `vllm 0.23.0 on 8 x NVIDIA H200`."""
    names: dict[str, None] = {}
    for experiment in experiments:
        for environment in (record.environment for record in experiment.records):
            names[f"{environment.engine_name} {environment.engine_version} on {_device(environment)}"] = None
    return "; ".join(names)


def differences(environments: Sequence[Environment]) -> list[str]:
    """Each fact in which `environments` differ, with its values and how many launches have each."""
    flat = [environment_facts(environment) for environment in environments]
    texts = []
    for name in dict.fromkeys(name for facts in flat for name in facts):
        values = Counter(facts.get(name, "not set") for facts in flat)
        if len(values) > 1:
            shown = "; ".join(f"{value} ({several(n, 'launch')})" for value, n in values.most_common())
            texts.append(f"{name}: {shown}")
    return texts


def _commonest(environments: Sequence[Environment]) -> Environment:
    counts = Counter(str(environment_facts(environment)) for environment in environments)
    commonest = counts.most_common(1)[0][0]
    return next(e for e in environments if str(environment_facts(e)) == commonest)


def _device(environment: Environment) -> str:
    times = "" if environment.device_count == 1 else f"{environment.device_count} x "
    return times + environment.device_model


def _describe(environment: Environment) -> str:
    plugins = "".join(f", {name} {version}" for name, version in sorted(environment.plugins.items()))
    device = _device(environment)
    if environment.cpu_model != environment.device_model:
        device += f"; {environment.cpu_model}"
    commit = ""
    if environment.git_commit:
        digits, dirty, _ = environment.git_commit.partition("-dirty")
        commit = f", rollout-bench {digits[:12]}{dirty}"
    return (
        f"{environment.engine_name} {environment.engine_version}{plugins}, "
        f"torch {environment.torch_version}, Python {environment.python_version}; "
        f"{device}, {several(environment.cpu_cores, 'core')}, "
        f"{environment.memory_bytes / 2**30:.0f} GiB memory, {environment.kernel}, "
        f"host {environment.hostname}{commit}."
    )
