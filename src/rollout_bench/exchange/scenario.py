"""The scenario of a Benchmark Report: stack and load of an experiment, from its spec and the record of a launch."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, Final

from rollout_bench.contracts.load import Length, LoadPoint, Normal, Uniform
from rollout_bench.contracts.modes import mode_of
from rollout_bench.contracts.record import Record
from rollout_bench.contracts.spec import engines, tensor_parallel_size
from rollout_bench.core.secrets import without_secrets

ENGINE: Final = "engine"
"""Label of the engine among the stack's components."""

OWN_TOOL: Final = "rollout-bench"

UNKNOWN: Final = "unknown"

_FOLDERS = re.compile(r"(?<![\w./~])/(?:[^\s/:,;'\"]+/)+")
"""The folders of an absolute path. The path of a URL does not match."""

OWNED_BY_ENGINES: Final = ("vllm", "sglang", "llamacpp")
"""Engines that write their own name as the model's owner in /v1/models. Other owners are people or companies."""


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
                for label, config in record.spec.own.beside_engines().items()
            ),
        ],
        "load": _load(record, point, stage, means),
    }


def _engine(record: Record) -> dict[str, Any]:
    spec, environment, found = record.spec, record.environment, record.engine
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
        "weights_bytes_by_dtype": found.weights_bytes_by_dtype and found.weights_bytes_by_dtype.model_dump(),
        "linear_methods": found.linear_methods,
        "resolved": found.resolved,
        "kv_cache_tokens": found.kv_cache_tokens,
        **found.model_dump(include={"linear_kernels", "kv_cache"}),
        "plugins": environment.plugins,
        "torch_version": environment.torch_version,
        "python_version": environment.python_version,
        "packages": environment.packages,
    }
    if spec.endpoint is not None:
        owner, running = (found.served.owned_by, found.served.version) if found.served else (None, None)
        tool, version = owner if owner in OWNED_BY_ENGINES else UNKNOWN, running or UNKNOWN
        model = _elsewhere(spec.endpoint.model)  # the served name, which other tools use, too
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
        "metadata": _metadata({"args": args, "settings": settings}, label=ENGINE),
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
    return {name: _elsewhere(without_secrets(value)[0]) for name, value in settings.items()}


def _elsewhere(content: Any) -> Any:
    """Return nested `content` with each absolute path shortened to `.../name`."""
    if isinstance(content, str):
        return _FOLDERS.sub(".../", content)
    if isinstance(content, Mapping):
        return {name: _elsewhere(value) for name, value in content.items()}
    return [_elsewhere(value) for value in content] if isinstance(content, list | tuple) else content


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
    sections = {"load": spec.load, mode_of(spec.mode).settings: spec.own}
    config |= {name: each.model_dump(mode="json") for name, each in sections.items() if name and each is not None}
    # Only enforced lengths: if a model may end its text earlier, output_tokens is only a limit.
    output = _length(workload.output_tokens, measured, means.get("output")) if workload.ignore_eos else None
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
        most = length if isinstance(length, int) else length.high
        return {"distribution": "other", "value": most if mean is None else mean}
    if isinstance(length, int):
        return {"distribution": "fixed", "value": length}
    bounds = {"min": length.low, "max": length.high}
    if isinstance(length, Normal):
        return {"distribution": "gaussian", "value": length.mean, "std_dev": length.std, **bounds}
    if isinstance(length, Uniform):
        return {"distribution": "uniform", "value": (length.low + length.high) / 2, **bounds}
    return {"distribution": "other", "value": length.median if mean is None else mean, **bounds}
