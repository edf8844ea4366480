"""Results as llm-d's Benchmark Reports: a file for each launch and each experiment under each load, and an index.

Source of the format: `llmdbenchmark/analysis/benchmark_report/schema_v0_2*.py` of github.com/llm-d/llm-d-benchmark.
"""

import hashlib
import json
import math
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml

from rollout_bench.analysis.stats.percentiles import Array
from rollout_bench.analysis.timed.collection import collect
from rollout_bench.analysis.timed.experiments import ResultSet, TimedExperiment, invalid_codes
from rollout_bench.analysis.timed.latencies import provable
from rollout_bench.analysis.timed.service import Requests, pool_requests
from rollout_bench.contracts.axes import name_of
from rollout_bench.contracts.load import Length, LoadPoint, Normal, Uniform, longest
from rollout_bench.contracts.modes import mode_of
from rollout_bench.contracts.record import Iteration, Record
from rollout_bench.contracts.spec import behind_server, engines, tensor_parallel_size
from rollout_bench.core.errors import UserError
from rollout_bench.core.files import write_whole
from rollout_bench.core.numbers import several
from rollout_bench.core.places import with_short_paths
from rollout_bench.core.secrets import without_secrets
from rollout_bench.numbers.launch import parts_of
from rollout_bench.plan.planfile import PlanFile

VERSION: Final = "0.2.1"

INDEX: Final = "index.json"
"""File that lists the reports, and the launches that were left out with reasons. It is beside the modes' folders."""

NAMESPACE: Final = uuid.uuid5(uuid.NAMESPACE_URL, "https://github.com/rollout-bench/benchmark-report")

OWN_TOOL: Final = "rollout-bench"

UNKNOWN: Final = "unknown"

OWNED_BY_ENGINES: Final = ("vllm", "sglang", "llamacpp")
"""Engines that write their own name as the model's owner in /v1/models. Other owners are people or companies."""

PERCENTILES: Final = {
    "p0p1": 0.1, "p1": 1, "p5": 5, "p10": 10, "p25": 25, "p50": 50, "p75": 75, "p90": 90, "p95": 95, "p99": 99,
    "p99p9": 99.9,
}  # fmt: skip
"""Field of a report's statistics -> percentage."""

FEW: Final = {"p50": 50}
"""Percentiles of a few values, such as passes or launches."""

LATENCY_UNITS: Final = {
    "time_to_first_token": ("ttft_s", "s"),
    "normalized_time_per_output_token": ("ntpot_s", "s/token"),
    "time_per_output_token": ("tpot_s", "s/token"),
    "inter_token_latency": ("itl_s", "s/token"),
    "request_latency": ("e2el_s", "s"),
}
"""Latency field of a report -> our measure, and its unit in the report."""


@dataclass(frozen=True)
class BenchmarkReports:
    """Reports of a results folder.

    Attributes:
        reports: path below the output folder -> report.
        left_out: a line for each launch without a report, with the reason.
        unread: errors of records and side files that can't be read.
    """

    reports: dict[str, dict[str, Any]]
    left_out: tuple[str, ...]
    unread: tuple[UserError, ...]


def export(results: Path, plan: PlanFile | None = None) -> BenchmarkReports:
    """Return reports of every valid launch in `results` of a mode that generates.

    Args:
        results: the results folder.
        plan: plan that selects launches; None for all launches.

    Raises:
        UserError: if `results` is no folder.
    """
    collection = collect(results, plan)
    reports: dict[str, dict[str, Any]] = {}
    unread = list(collection.damaged)
    for part in collection.experiments:
        records = [record for record in part.records if record.valid]
        read = [part.whole.side_files[record.launch].content for record in records]
        unread += [error for error in read if isinstance(error, UserError) and error not in unread]
        requests = [part.measured_requests(record) for record in records]
        folder, ending = part.whole.place, "" if part.part is None else f".stage-{_stage(part)}"
        for record, record_requests in zip(records, requests, strict=True):
            name = f"{folder}/launch-{record.launch}{ending}.yaml"
            reports[name] = report_of_launches([record], [record_requests], part, str(record.launch))
        if records:
            reports[f"{folder}/experiment{ending}.yaml"] = report_of_launches(records, requests, part, "all")
    return BenchmarkReports(reports, tuple(_left_out(collection)), tuple(unread))


def report_of_launches(
    records: Sequence[Record], requests: Sequence[Requests | None], part: TimedExperiment, scope: str
) -> dict[str, Any]:
    """Return the report of launches [n >= 1] of `part`: `scope` is the number of a single launch, or "all".

    A launch under a load always has the same uid, which does not depend on the measured values. `requests` are as in
    `results_of`.
    """
    first = records[0]
    names = [first.key, scope] if part.part is None else [first.key, scope, part.part.point.model_dump_json()]
    measured = "launch " + scope if scope != "all" else several(len(records), "launch")
    spans = [
        (datetime.fromisoformat(each.started_at).astimezone(UTC), timedelta(seconds=each.wall_s)) for each in records
    ]
    ends = {"start": min(begin for begin, _ in spans), "end": max(begin + wall for begin, wall in spans)}
    times = {name: moment.isoformat().replace("+00:00", "Z") for name, moment in ends.items()}
    if len(records) == 1 and part.part is None:  # interleaved launches, and loads that share a launch, have no duration
        times["duration"] = f"PT{first.wall_s}S"
    passes = [iteration for record in records for iteration in record.iterations if not iteration.warmup]
    return {
        "version": VERSION,
        "run": {
            "uid": str(uuid.uuid5(NAMESPACE, " ".join(names))),
            "eid": str(uuid.uuid5(NAMESPACE, first.key)),
            "time": times,
            "description": f"{name_of(part)} ({part.mode}), {measured}",
        },
        "scenario": scenario_of(first, part.point, _stage(part), mean_lengths(passes)),
        "results": results_of(records, requests),
    }


def _stage(part: TimedExperiment) -> int:
    """Return the index of a load from 0: its stage in a profile, else its rank from the lightest load."""
    load = part.part
    return 0 if load is None else load.point.stage - 1 if load.point.stage else load.number


def write(exported: BenchmarkReports, out: Path) -> None:
    """Write all reports and the index into the folder `out`, which must be new or empty.

    An earlier export is not written over: a report of it whose record is gone would stay among the new ones.

    Raises:
        UserError: if there is something at `out`.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: is there already, and not empty", "name another folder with --out, or move it away")
    for name, report in exported.reports.items():
        write_whole(out / name, yaml_text(report).encode())
    content = {
        "format": "benchmark-report",
        "version": VERSION,
        "reports": {name: report["run"]["uid"] for name, report in exported.reports.items()},
        "left_out": list(exported.left_out),
        "unread": [error.problem for error in exported.unread],
    }
    write_whole(out / INDEX, (json.dumps(content, indent=1) + "\n").encode())


def yaml_text(report: dict[str, Any]) -> str:
    """Return a report as YAML."""
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    return str(yaml.dump(_without_unknown(report), Dumper=dumper, sort_keys=False, allow_unicode=True, width=120))


def _without_unknown(content: Any) -> Any:
    """Return nested `content` without unknown values, except below `native`, where null is a value."""
    if not isinstance(content, Mapping):
        return [_without_unknown(each) for each in content] if isinstance(content, list) else content
    return {name: v if name == "native" else _without_unknown(v) for name, v in content.items() if v is not None}


def _left_out(collection: ResultSet) -> Iterator[str]:
    for experiment in collection.launched:
        place = f"{experiment.mode}/{experiment.experiment}"
        if not mode_of(experiment.mode).generates:
            amount = several(len(experiment.records), "launch")
            yield f"{place}: {amount} not exported: a Benchmark Report has no place for mode {experiment.mode}"
            continue
        invalid = [(each.launch, invalid_codes(each.validity)) for each in experiment.records if not each.valid]
        reasons = [(launch, f"invalid ({', '.join(codes)})") for launch, codes in invalid]
        reasons += [(each.launch, f"failed ({each.category}: {each.cause})") for each in experiment.failures]
        yield from (f"{place} launch {launch}: not exported: {reason}" for launch, reason in reasons)


def scenario_of(record: Record, point: LoadPoint | None, stage: int, means: Mapping[str, float]) -> dict[str, Any]:
    """Return the scenario of an experiment under one load.

    Args:
        record: a launch of the experiment.
        point: load point of the requests; None offline.
        stage: index of the load point.
        means: measured mean tokens of a sequence, `input` and `output`, for lengths that the spec does not define.
    """
    return {
        # beside the engine: our router and trainer
        "stack": [
            _engine(record),
            *(
                {
                    "metadata": _metadata(config, label=label),
                    "standardized": {"kind": "generic", "tool": f"{OWN_TOOL} {label}", "tool_version": UNKNOWN},
                    "native": _native(config=config),
                }
                for label, config in record.spec.mode_spec.beside_engines().items()
            ),
        ],
        "load": _load(record, point, stage, means),
    }


def _engine(record: Record) -> dict[str, Any]:
    spec, environment, engine = record.spec, record.environment, record.engine
    tp, pp = tensor_parallel_size(spec), int(spec.engine.args.get("pipeline_parallel_size") or 1)
    args = dict(spec.engine.args)
    tool, version, model = environment.engine_name, environment.engine_version, spec.model.name
    settings = {
        "model": spec.model.model_dump(mode="json"),
        "quantization": spec.quant.model_dump(mode="json"),
        "platform": spec.platform,
        "multiprocess": spec.engine.multiprocess,
        "environment": spec.engine.environment,
    }
    config = {
        **settings,
        "weights_bytes_by_dtype": engine.weights_bytes_by_dtype and engine.weights_bytes_by_dtype.model_dump(),
        "linear_methods": engine.linear_methods,
        "resolved": engine.resolved,
        "kv_cache_tokens": engine.kv_cache_tokens,
        **engine.model_dump(include={"linear_kernels", "kv_cache"}),
        "plugins": environment.plugins,
        "torch_version": environment.torch_version,
        "python_version": environment.python_version,
        "packages": environment.packages,
    }
    if spec.endpoint is not None:
        owner, running = (engine.served.owned_by, engine.served.version) if engine.served else (None, None)
        tool, version = owner if owner in OWNED_BY_ENGINES else UNKNOWN, running or UNKNOWN
        model = with_short_paths(spec.endpoint.model)  # the served name, which other tools use, too
        endpoint = spec.endpoint.model_dump(mode="json", include={"url", "model"})
        del config["python_version"]  # the client's version
        config["endpoint"] = endpoint | ({} if owner is None else {"owned_by": owner})
    # Several engines are complete and independent: vLLM's data parallelism is not used.
    parallelism = {
        "tp": tp,
        "dp": 1,
        "dp_local": 1,
        "workers": 1,
        "ep": tp if args.get("enable_expert_parallel") else 1,
        "pp": pp,
    }
    return {
        "metadata": _metadata({"args": args, "settings": settings}, label="engine"),
        "standardized": {
            "kind": "inference_engine",
            "tool": tool,
            "tool_version": version,
            "role": "replica",
            "replicas": engines(spec),
            "model": {"name": model},
            "accelerator": {
                "model": environment.device_model,
                # of one engine; 0 means unknown
                "count": 0 if spec.endpoint is not None else 1 if spec.platform == "cpu" else tp * pp,
                "parallelism": parallelism,
            },
        },
        "native": _native(args=args, envars={**environment.variables, **spec.engine.environment}, config=config),
    }


def _metadata(
    config: Mapping[str, Any], label: str | None = None, description: str | None = None
) -> dict[str, str | None]:
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest()
    return {"schema_version": "0.0.1", "label": label, "cfg_id": digest, "description": description}


def _native(**settings: Any) -> dict[str, Any]:
    """Return settings that may be published: without secrets and without folders of this machine."""
    return {name: with_short_paths(without_secrets(value)[0]) for name, value in settings.items()}


def _load(record: Record, point: LoadPoint | None, stage: int, means: Mapping[str, float]) -> dict[str, Any]:
    spec = record.spec
    workload, shared = spec.workload, spec.workload.shared_prefix
    harness = OWN_TOOL if spec.load is None else spec.load.harness
    rate = "inf" if point is None else point.request_rate
    at_once = point and point.concurrency
    if at_once is None and rate == "inf":  # all requests are sent at once
        at_once = max((i.requests for i in record.iterations if not i.warmup), default=1) or None
    measured = workload.dataset is not None  # the lengths of a data set are only known from measured means
    config: dict[str, Any] = {
        "n": workload.samples_per_prompt,
        "seed": workload.seed,
        "mode": spec.mode,
        "workload": workload.model_dump(mode="json"),
        "measuring": spec.measuring.model_dump(mode="json"),
        "point": point and point.model_dump(mode="json"),
    }
    sections = {"load": spec.load, mode_of(spec.mode).settings: spec.mode_spec}
    config |= {name: each.model_dump(mode="json") for name, each in sections.items() if name and each is not None}
    # Only enforced lengths: if a model may end its text earlier, output_tokens is only a limit.
    enforced = workload.ignore_eos and workload.turns is None
    output = _length(workload.output_tokens, measured, means.get("output")) if enforced else None
    return {
        "metadata": _metadata(config, description=workload.name),
        "standardized": {
            "tool": "vllm-benchmark" if harness == "vllm-bench" else harness,  # its name in llm-d
            "tool_version": (spec.load and spec.load.harness_version) or record.environment.git_commit or UNKNOWN,
            "parallelism": 1,
            "source": "sampled" if workload.dataset is not None and workload.dataset.format != "trace" else "random",
            "stage": stage,
            "input_seq_len": _length(workload.prompt_tokens, measured, means.get("input")),
            "output_seq_len": output,
            "prefix": shared
            and {
                "prefix_len": {"distribution": "fixed", "value": shared.tokens},
                "num_groups": shared.groups,
                "num_users_per_group": -(-workload.prompts // shared.groups),
                "num_prefixes": 1,
            },
            "rate_qps": rate if isinstance(rate, float) else None,
            "concurrency": at_once,
        },
        "native": _native(
            config={
                "key": record.key,
                "experiment": record.experiment,
                "setting": spec.setting,
                "measurement_version": record.measurement_version,
                "rollout_bench_commit": record.environment.git_commit,
                **config,
            }
        ),
    }


def _length(length: Length, measured: bool, mean: float | None) -> dict[str, Any]:
    """Return a length in llm-d's format. A distribution that llm-d lacks is `other`, with the measured mean."""
    if measured:
        return {"distribution": "other", "value": mean or longest(length)}
    if isinstance(length, int):
        return {"distribution": "fixed", "value": length}
    bounds = {"min": length.low, "max": length.high}
    if isinstance(length, Normal):
        return {"distribution": "gaussian", "value": length.mean, "std_dev": length.std, **bounds}
    if isinstance(length, Uniform):
        return {"distribution": "uniform", "value": (length.low + length.high) / 2, **bounds}
    return {"distribution": "other", "value": mean or length.median + (length.offset or 0), **bounds}


def statistics_of(
    values: Array | Sequence[float | None],
    units: str,
    percentiles: Mapping[str, float] = PERCENTILES,
    mean: float | None = None,
) -> dict[str, Any] | None:
    """Return statistics of the known finite values among `values` [n]; None if there is none.

    The percentile p is the value of rank ceil(n p / 100), without interpolation, as in our tables. The standard
    deviation divides by n - 1, and is None for a single value. `mean`, if given, replaces the mean of the values.
    """
    array = np.asarray(values, dtype=float)
    ordered = np.sort(array[np.isfinite(array)])
    n = ordered.size
    if not n:
        return None
    ranks = {name: max(math.ceil(round(n * percent / 100, 9)), 1) for name, percent in percentiles.items()}
    return {
        "units": units,
        "mean": float(np.clip(ordered.mean(), ordered[0], ordered[-1])) if mean is None else mean,
        "stddev": float(ordered.std(ddof=1)) if n > 1 else None,
        "min": float(ordered[0]),
        **{name: float(ordered[rank - 1]) for name, rank in ranks.items()},
        "max": float(ordered[-1]),
    }


def results_of(records: Sequence[Record], requests: Sequence[Requests | None]) -> dict[str, Any]:
    """Return the common results of `records` [n >= 1], valid launches of one experiment under one load.

    Requests of several launches are pooled. The statistics of a rate have one value for each launch; for a single
    launch, they have one value for each pass. `requests` [n] are those of each launch without warm-up; None if its side
    file can't be read.
    """
    only_starts = mode_of(records[0].spec.mode).passes == "none"  # one token after a start is no throughput
    passes = [[iteration for iteration in record.iterations if not iteration.warmup] for record in records]
    values, independent = _latencies(requests, mode_of(records[0].spec.mode).has_loads)
    latency = {
        field: statistics_of(values[measure], units)
        for field, (measure, units) in LATENCY_UNITS.items()
        if measure in values
    }
    aggregate = {
        "requests": _requests(passes, requests),
        "latency": latency or None,
        "throughput": None if only_starts else _throughput(passes),
    }
    proven = {}
    for field, (measure, _) in LATENCY_UNITS.items():
        if measure in independent:
            levels = provable(independent[measure])
            proven[field] = {"independent": independent[measure], "highest": f"p{max(levels)}" if levels else "none"}
    resources = _resources([iteration for iterations in passes for iteration in iterations])
    flags = Counter((flag.code, flag.severity) for record in records for flag in record.validity)
    mode = mode_of(records[0].spec.mode)
    observability = {
        "components": [{"component_label": "engine", "aggregate": resources}] if resources else None,
        "engine_startup": _startup(records) or None,
        **(mode.report_fields.get()(records) if mode.report_fields else {}),
        "percentiles_proven": proven or None,
        "validity": {
            "valid_launches": len(records),
            "flags": [
                {"code": code, "severity": severity, "times": n} for (code, severity), n in sorted(flags.items())
            ],
        },
    }
    return {"request_performance": {"aggregate": aggregate}, "observability": observability}


def mean_lengths(passes: Sequence[Iteration]) -> dict[str, float]:
    """Return the measured mean tokens of a sequence in `passes`: `input` and `output`."""
    sequences = sum(iteration.sequences for iteration in passes)
    tokens = {"input": sum(i.prompt_tokens for i in passes), "output": sum(i.output_tokens for i in passes)}
    return {name: amount / sequences for name, amount in tokens.items()} if sequences else {}


def _requests(passes: Sequence[Sequence[Iteration]], requests: Sequence[Requests | None]) -> dict[str, Any]:
    every = [iteration for iterations in passes for iteration in iterations]
    fields: dict[str, Any] = {
        "total": sum(i.requests for i in every),
        "failures": sum(i.failed or 0 for i in every),
        "incomplete": sum(i.incomplete or 0 for i in every),
    }
    means, known = mean_lengths(every), [each for each in requests if each is not None]
    for name, column in (("input", "prompt_tokens"), ("output", "output_tokens")):
        tokens = [getattr(each, column)[each.good] for each in known]
        of_all = statistics_of(np.concatenate(tokens), "count") if len(known) == len(requests) else None
        only_mean = {"units": "count", "mean": means[name]} if name in means else None
        fields[f"{name}_length"] = of_all or only_mean
    return fields


def _throughput(passes: Sequence[Sequence[Iteration]]) -> dict[str, Any]:
    single = len(passes) == 1
    groups = [[each] for each in passes[0]] if single else passes

    def rate(amount: Callable[[Iteration], float], units: str) -> dict[str, Any] | None:
        values = [
            sum(map(amount, iterations)) / sum(i.elapsed_s for i in iterations) for iterations in (*groups, passes[0])
        ]
        return statistics_of(values[:-1], units, FEW, values[-1] if single else None)

    return {
        "input_token_rate": rate(lambda i: i.prompt_tokens, "tokens/s"),
        "output_token_rate": rate(lambda i: i.output_tokens, "tokens/s"),
        "total_token_rate": rate(lambda i: i.prompt_tokens + i.output_tokens, "tokens/s"),
        "request_rate": rate(lambda i: i.requests - (i.failed or 0) - (i.incomplete or 0), "queries/s"),
    }


def _latencies(requests: Sequence[Requests | None], has_loads: bool) -> tuple[Mapping[str, Array], Mapping[str, int]]:
    """Return for each measure: its values [n] over all launches, and the number of independent values.

    Without a server, all requests are submitted at the start of a pass, so latencies count from there. Both are empty
    if a time of such a sequence is unknown, or a side file can't be read.
    """
    known = [each if has_loads else each.sent_at_start() for each in requests if each is not None]
    timed = has_loads or not any(
        np.isnan([requests_of.ttft_s[requests_of.good], requests_of.e2el_s[requests_of.good]]).any()
        for requests_of in known
    )
    return pool_requests(known) if timed and len(known) == len(requests) else ({}, {})


def known_statistics(entries: Mapping[str, tuple[Sequence[float | None], str]]) -> dict[str, Any]:
    """Return the statistics of each entry, by its name, whose values are known: values and unit."""
    stated = {name: statistics_of(values, units, FEW) for name, (values, units) in entries.items()}
    return {name: found for name, found in stated.items() if found is not None}


def _startup(records: Sequence[Record]) -> dict[str, Any]:
    """Return the parts of the start in seconds; for our server only the total, for a foreign endpoint nothing."""
    served = [record for record in records if behind_server(record.spec) and record.spec.endpoint is None]
    seen = [record.startup for record in records if not behind_server(record.spec)]
    reported = dict.fromkeys(name for record in records for name in record.startup.reported if name.endswith("_s"))
    return known_statistics(
        {
            "process": ([record.startup.process_s for record in records], "s"),
            "import": ([startup.import_s for startup in seen], "s"),
            "init": ([startup.init_s for startup in seen], "s"),
            "server_start": ([parts_of(record).get("server_start_s") for record in served], "s"),
            **{
                name.removesuffix("_s"): ([record.startup.reported.get(name) for record in records], "s")
                for name in reported
            },
        }
    )


def _resources(passes: Sequence[Iteration]) -> dict[str, Any]:
    """Return the resources that engines reported: statistics over the totals of passes."""
    hits = [
        i.cached_prompt_tokens / i.prompt_tokens
        for i in passes
        if i.cached_prompt_tokens is not None and i.prompt_tokens
    ]
    uses = [use for iteration in passes for use in iteration.devices or ()]
    watts = [use.energy_j / use.window_s for use in uses if use.energy_j is not None and use.window_s]
    return known_statistics(
        {
            "cache_hit_rate": (hits, "fraction"),
            "preemptions": ([i.server.preemptions for i in passes if i.server is not None], "count"),
            "power_consumption": (watts, "Watts"),
        }
    )
