"""The registry of failures: categories of any launch, and those that a mode brings.

The table of docs/troubleshoot.md is made of it.
"""

from rollout_bench.contracts.modes import MODES
from rollout_bench.contracts.problems import FailureKind

_CORES = "on a CPU `devices` must not exceed the cores"
_BEFORE = (
    "the output of [the command before the start](settings.md#run-a-command-before-each-start) is in the launch's log"
)
_BY_HAND = "try one request by hand; see [endpoints](serving.md#measure-a-running-server)"
_SLURM = "[Slurm](clusters.md#when-something-fails): read `logs/slurm/`"

_SHARED = (
    FailureKind(
        "missing_weights",
        remedy="correct `model_base` too; a hub model must be in the local cache if the hub is out of reach",
    ),
    FailureKind("lora_unsupported", remedy="leave `lora` out for this model"),
    FailureKind("draft_unsupported", remedy="name a trained draft, or use a method without one: `ngram`"),
    FailureKind("unsupported_quantization", remedy="[which one runs where](models-and-quantizations.md#what-is-known)"),
    FailureKind("too_few_devices", remedy=_CORES),
    FailureKind("visible_devices", remedy=_CORES),
    FailureKind(
        "before_failed",
        remedy=_BEFORE,
    ),
    FailureKind(
        "before_timeout",
        remedy=_BEFORE,
    ),
    FailureKind("refused", remedy=_BY_HAND),
    FailureKind("unreachable", remedy=_BY_HAND),
    FailureKind("wrong_key", remedy=_BY_HAND),
    FailureKind("wrong_model", remedy=_BY_HAND),
    FailureKind("tls", remedy=_BY_HAND),
    FailureKind("all_requests_failed", remedy=_BY_HAND),
    FailureKind("request_refused", remedy=_BY_HAND),
    FailureKind("load_format_missing", remedy="[measure a start](vllm-developers.md#measure-a-start)"),
    FailureKind("timeout", remedy="the end of the log shows where it hung"),
    FailureKind("killed", remedy="if nobody killed the launch, memory ran out: read `dmesg`"),
    FailureKind("time_limit", remedy=_SLURM),
    FailureKind("preempted", remedy=_SLURM, of_node=True),
    FailureKind("node_failure", remedy=_SLURM, of_node=True),
    FailureKind(
        "crash",
        remedy=(
            "may be chance: if the log shows its cause, [add it to the known "
            "causes](../CONTRIBUTING.md#a-cause-of-failure)"
        ),
    ),
    FailureKind("bad_engine_argument"),
    FailureKind("broken_install"),
    FailureKind("cancelled"),
    FailureKind("cann_missing", of_node=True),
    FailureKind("cuda_driver", of_node=True),
    FailureKind("damaged_weights"),
    FailureKind("dataset_changed"),
    FailureKind("device_broken", of_node=True),
    FailureKind("device_memory_taken", of_node=True),
    FailureKind("disk_full", of_node=True),
    FailureKind("engine_version"),
    FailureKind("impossible_load"),
    FailureKind("kv_cache_too_small"),
    FailureKind("load_generator"),
    FailureKind("max_model_len_too_large"),
    FailureKind("missing_package"),
    FailureKind("no_kv_cache_memory"),
    FailureKind("no_platform", of_node=True),
    FailureKind("no_tokenizer"),
    FailureKind("not_written"),
    FailureKind("out_of_memory"),
    FailureKind("peer_lost"),
    FailureKind("port_or_ipc", of_node=True),
    FailureKind("sleep_mode_unsupported"),
    FailureKind("stop_timeout"),
    FailureKind("tensor_parallel_size"),
    FailureKind("trust_remote_code"),
    FailureKind("unknown_architecture"),
    FailureKind("unsupported_dtype"),
    FailureKind("unsupported_kv_cache_dtype"),
    FailureKind("weights_mismatch"),
    FailureKind("wrong_tokenizer"),
)

_OWN = (kind for mode in MODES.values() if mode.failures for kind in mode.failures.get())

FAILURES: dict[str, FailureKind] = {kind.category: kind for kind in (*_SHARED, *_OWN)}
"""Category -> kind of failure."""
