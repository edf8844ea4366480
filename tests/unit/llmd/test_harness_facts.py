"""Profiles are sent as by their harnesses, whose own commands were recorded with bundled and drawn ones.

What our sender sends is recorded here, too, by the same server.
"""

import itertools
import json
import lzma
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from planned import planned
from scipy import stats
from stub_server import Stub, prompt_of

from rollout_bench.contracts.spec import Spec
from rollout_bench.core.errors import UserError
from rollout_bench.llmd.profiled import WorkloadProfile, profile_of
from rollout_bench.measure.server import paced, served
from rollout_bench.measure.server.paced import prepare
from rollout_bench.measure.server.session import sampling
from rollout_bench.measure.server.stream import Load, Target
from rollout_bench.workloads.lengths import drawn
from rollout_bench.workloads.requests import Source, arrivals

pytestmark = pytest.mark.slow

ORACLES = Path(__file__).parents[3] / "studies" / "oracles"
TABLES = {
    "guidellm": "guidellm-0.8.1.jsonl.xz",
    "inference-perf": "inference-perf-0.7.0.jsonl.xz",
    "vllm-benchmark": "vllm-0.32.0.jsonl.xz",
}

SERVER = {"url": "http://127.0.0.1:1/v1", "model": "m", "api_key_env": None}
CONFIG: dict[str, Any] = {"modes": ["online"], "models": [], "endpoints": {"s": SERVER}, "timeout_s": 9000}

VOCABULARY = 5000
UNLIKELY = 1e-4
"""Probability below which recorded values are not from our distribution."""

NEUTRAL = {"repetition_penalty": 1.0, "logprobs": None}
"""Fields that change nothing."""

OF_A_REQUEST = ("prompt", "messages", "model", "max_tokens", "stream", "stream_options")
"""Fields that have nothing to do with sampling."""

SOME = 3
"""Requests that are sent here of a load that ends by time."""

LEFT_TO_THE_SERVER = ("temperature", "top_p", "top_k")
"""Fields that a harness may leave out, which the plan then says."""


def table(harness: str) -> Iterator[dict[str, Any]]:
    with lzma.open(ORACLES / TABLES[harness], "rt") as lines:
        yield from map(json.loads, lines)


def spec_of(harness: str, profile: dict[str, Any], folder: Path) -> tuple[Spec, list[str]]:
    """Return the spec that is planned for a profile, and what is said of it."""
    file = folder / "profile.yaml"
    file.write_text(yaml.safe_dump(profile))
    named = {"harness": harness, "path": str(file)}
    [experiment] = planned(CONFIG | {"workloads": ["w"], "workload_settings": {"w": {"profile": named}}}).experiments
    return experiment.spec, profile_of(WorkloadProfile(**named), CONFIG, "config: w").meaning.notes


def loads_of(spec: Spec, patch: pytest.MonkeyPatch) -> list[Load]:
    """Return the load of a pass at each point, as it would be sent."""
    assert spec.load is not None
    patch.setattr(paced, "prepare", lambda load, _: load)
    target = Target("http://127.0.0.1:1/v1", "m", {}, True, sampling(spec, []))
    source, found = Source(spec.workload, VOCABULARY, "m"), []
    for number, point in enumerate(spec.load.points):
        asked = source.requests(0, number)
        prompts = [request.prompt_token_ids for request in asked]
        load: Any = served.prepare(spec.load, asked, prompts, point, target, f"{number}")
        found.append(load)
    return found


def sent_wrongly(load: Load, spec: Spec, row: dict[str, Any], notes: list[str], server: Stub) -> Iterator[str]:
    """Send a pass to the server, but without waiting; yield how what arrived differs from plan and harness."""
    assert spec.load is not None
    chat = spec.load.api == "chat"
    target = Target(f"{server.url}/v1", "m", {}, True, sampling(spec, []), chat=chat)
    prompts = [" ".join(map(str, one)) for one in load.prompts] if chat else load.prompts
    due_s = load.due_s and [0.0] * len(load.due_s)
    server.become(keeps_bodies=True, ttft_ms=0, itl_ms=0)
    prepare(replace(load, prompts=prompts, due_s=due_s, duration_s=None, count=load.count or SOME), target)()
    kept = server.truth()["requests"]
    order = [number for number, _ in itertools.islice(load.order(), load.count or SOME)]
    planned_ones = sorted((prompts[number], load.requests[number].output_tokens) for number in order)
    if planned_ones != sorted((prompt_of(one["body"]), one["body"]["max_tokens"]) for one in kept):
        yield "requests: others arrived than are planned"
    asked = [{name: value for name, value in one["body"].items() if name not in OF_A_REQUEST} for one in kept]
    if any(one != asked[0] for one in asked) or not all(one["body"]["stream"] for one in kept):
        yield "requests: they differ in more than prompt and length"
    if row["path"] != kept[0]["path"]:
        yield f"path: {kept[0]['path']}, {row['path']}"
    theirs = {name: value for name, value in row["body"].items() if value != NEUTRAL.get(name, "none")}
    own = {name: value for name, value in asked[0].items() if name != "return_token_ids"}
    own["ignore_eos"], theirs["ignore_eos"] = bool(own.get("ignore_eos")), bool(theirs.get("ignore_eos"))
    for name in own.keys() | theirs.keys():
        is_told = name in LEFT_TO_THE_SERVER and name not in theirs and any(f"{name} " in note for note in notes)
        if own.get(name) != theirs.get(name) and not is_told:
            yield f"{name}: {own.get(name)}, {theirs.get(name)}"


def differ(ours: Any, recorded: list[int], label: str, are_repeated: bool) -> bool:
    """Return whether recorded lengths are not from our distribution; of repeated ones, whether they are beyond it."""
    if isinstance(ours, int):
        return set(recorded) != {ours}
    same = drawn(ours, label, 4000)
    is_outside = min(recorded) < ours.low or max(recorded) > ours.high
    return is_outside or (not are_repeated and stats.ks_2samp(recorded, same).pvalue < UNLIKELY)


def wrong_times(load: Load, sent_s: Any) -> str | None:
    """Return what is wrong with the times of a load's recorded requests."""
    count, rate = len(sent_s), load.request_rate
    if rate is None or count < 3:
        return None
    gaps = np.diff(sent_s)
    measured = (count - 1) / (sent_s[-1] - sent_s[0])
    if load.burstiness == "constant":
        return (
            None
            if abs(measured / rate - 1) < 0.1 and gaps.std() < 0.3 * gaps.mean()
            else f"{measured} a second, {gaps}"
        )
    spread = load.burstiness**-0.5
    if abs(rate / measured - 1) > 4 * spread / count**0.5:
        return f"{measured} requests a second instead of {rate}"
    same = np.diff(arrivals(rate, load.burstiness, 4000, "same"))
    chance = stats.ks_2samp(gaps / gaps.mean(), same / same.mean()).pvalue
    return None if chance > UNLIKELY else f"gaps are not as likely, {chance:.1g}: {gaps.round(3)}"


def disagreements(
    harness: str, row: dict[str, Any], folder: Path, patch: pytest.MonkeyPatch, server: Stub
) -> list[str]:
    """Return how what is sent here differs from what the harness sent."""
    spec, notes = spec_of(harness, row["profile"], folder)
    load = spec.load
    assert load is not None
    loads, found = loads_of(spec, patch), []
    found += sent_wrongly(loads[0], spec, row, notes, server)
    for name in ("prompt_tokens", "output_tokens"):
        ours = getattr(spec.workload, name)
        if differ(ours, row[name], name, row["prompts"] < len(row[name])):
            found.append(f"{name}: {ours}, {sorted(row[name])}")
    counts, sent = [one.count for one in loads], len(row["sent_ms"])
    if None in counts:  # closed loops that end by time: as many as the server answers
        return found + wrong_sharing(spec, row)
    total = sum(count or 0 for count in counts)
    if abs(total - sent) > more_by_time(row, loads):
        return [*found, f"requests: {counts}, {sent}"]
    if total != sent and len(counts) > 1:
        return found + wrong_sharing(spec, row)
    counts = counts if total == sent else [sent]
    times_s = np.split(np.array(row["sent_ms"]) / 1000, np.cumsum([count or 0 for count in counts])[:-1])
    wrong = [wrong_times(one, times) for one, times in zip(loads, times_s, strict=True) if one.concurrency is None]
    found += [problem for problem in wrong if problem is not None]
    most = max(one.concurrency or (one.count if one.due_s is None else sent) for one in loads)
    is_closed = all(one.due_s is None for one in loads)
    if row["at_once"] > most or (is_closed and row["at_once"] < min(most, sent)):
        found.append(f"at once: {most}, {row['at_once']}")
    found += wrong_sharing(spec, row)
    return found


def more_by_time(row: dict[str, Any], loads: list[Load]) -> float:
    """Return by how many requests a load that guidellm ends by time may differ: the last is sent as the time ends."""
    if not any("max_duration" in one.values() for one in row["profile"].get("spec", {}).get("constraints", ())):
        return 0
    return sum(1 if one.burstiness == "constant" else 4 * (one.count or 0) ** 0.5 for one in loads)


def wrong_sharing(spec: Spec, row: dict[str, Any]) -> list[str]:
    """Return how the prefixes that prompts share differ."""
    prefix = spec.workload.shared_prefix
    by_chance = 3
    if prefix is None:
        return [] if max(row["shared_tokens"]) <= by_chance else [f"shared: none, {row['shared_tokens']}"]
    if row["prompts"] <= prefix.groups:
        return []
    shared = [tokens for tokens in row["shared_tokens"] if tokens > by_chance]
    is_right = shared and all(prefix.tokens <= tokens <= prefix.tokens + by_chance for tokens in shared)
    return [] if is_right else [f"shared: {prefix}, {row['shared_tokens']}"]


@pytest.mark.parametrize("harness", TABLES)
def test_requests_are_those_of_the_harness(harness: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Stub):
    monkeypatch.setattr("gc.collect", lambda: 0)  # of the sender, before each of many passes
    wrong: list[Any] = []
    held = 0
    for row in table(harness):
        try:
            refused = [f"it refuses: {row['refused']}"] if "refused" in row else []
            found = refused or disagreements(harness, row, tmp_path, monkeypatch, server)
        except UserError as error:
            found = [str(error)]
        held += not found
        wrong += [(row["name"] or row["profile"], found)] if found else []
    assert not wrong, "\n".join(map(str, wrong))
    assert held > 20
