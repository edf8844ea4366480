"""The registry of flags: those of any launch, and those that a mode brings.

`make docs` makes the tables of docs/troubleshoot.md of it, and studies/results_page.py the one of docs/trust.md.
"""

from rollout_bench.contracts.modes import MODES
from rollout_bench.contracts.problems import FlagKind

_REPORT = "report it with record and log; at an endpoint, a different count is the server's doing"
_LEFT_ALONE = "let launches run and leases stand; measure again"
_OTHER_WEIGHTS = (
    "use another quantization, `cycle.update` or vLLM: [what it means](whole-step.md#did-the-new-weights-arrive)"
)
_END_OTHERS = "end the other processes or free memory"
_MORE_CACHE = "give the KV cache more memory, or lower `max_num_seqs`"
_NOT_MEASURED = "leave the argument out, or install the missing package: the launch did not measure it"
_ABOUT = "nothing: lengths or counts are approximate"
_ALIKE = "make devices and free cores alike, set `kv_cache_memory_bytes`, or lengthen the step"
_IN_PAIRS = "measure again, or raise `launches`; if memory does not hold all engines, set `interleave: false`"
_SAME_PLACE = (
    "nothing if there is [a verdict](clusters.md#what-is-recorded); else measure again on one machine with the same "
    "neighbours"
)

_SHARED = (
    FlagKind(
        "quant_not_proven",
        "I",
        found="weights or KV cache are not the quantization's",
        remedy="[read what was loaded](models-and-quantizations.md#the-proof)",
        mended_by="name the weights of the quantization, or leave it out (the flag says what was loaded)",
    ),
    FlagKind(
        "lora_not_proven",
        "I",
        found="the engine does not use the adapter",
        remedy="use another vLLM, or leave `lora` out: [what is proven](lora.md#the-proof)",
        mended_by="use another vLLM, or leave lora out (the flag says what was found)",
    ),
    FlagKind(
        "acceptance_not_proven",
        "I",
        found="drafts are not accepted as often as asked",
        remedy="use another vLLM, or leave `rejection_sample_method` out",
        mended_by="use another vLLM, or leave rejection_sample_method out (the flag says what was accepted)",
    ),
    FlagKind(
        "routing_not_proven",
        "I",
        found="the engine did not name the experts of all tokens",
        remedy="use another vLLM, or leave `enable_return_routed_experts` out",
        mended_by="use another vLLM, or leave enable_return_routed_experts out (the flag says what came back)",
    ),
    FlagKind(
        "token_count",
        "I, or W online",
        found="sequences or tokens are missing",
        remedy=_REPORT,
    ),
    FlagKind(
        "cross_iteration_prefix_hits",
        "I, or W online",
        found="the prefix cache hit more than the samples of a prompt share",
        remedy=_REPORT,
    ),
    FlagKind(
        "other_model_files",
        "I",
        found="the model's files differ from those of a newer launch",
        remedy="run again: [the model changed](#the-model-changed)",
    ),
    FlagKind(
        "lease_lost",
        "I",
        found="its lease was removed",
        remedy=_LEFT_ALONE,
    ),
    FlagKind(
        "paused",
        "I",
        found="the engine, the launch or the machine was stopped",
        remedy=_LEFT_ALONE,
        disturbs=True,
    ),
    FlagKind(
        "output_changed",
        "I",
        found="the same weights gave other tokens or checksums after an update",
        remedy=_OTHER_WEIGHTS,
    ),
    FlagKind(
        "update_without_effect",
        "I",
        found="weights that had to change did not",
        remedy=_OTHER_WEIGHTS,
    ),
    FlagKind(
        "stale_prefix_cache",
        "I",
        found="the prefix cache of the old weights was used after an update",
        remedy="use another `cycle.update` or vLLM: [what it means](whole-step.md#did-the-new-weights-arrive)",
    ),
    FlagKind(
        "draft_lost",
        "I",
        found="after a sleep and an update far fewer tokens of a trained draft were accepted",
        remedy="set `cycle.sleep: 1`, which keeps a draft's weights, or use another vLLM",
    ),
    FlagKind(
        "kv_cache_not_as_asked",
        "I",
        found="an update in flight kept or dropped the KV cache otherwise than asked",
        remedy="lengthen answers, give the KV cache more memory, or use another vLLM",
    ),
    FlagKind(
        "cpu_steal",
        "W, I",
        found="other virtual machines used the cores",
        raised_if="other virtual machines used the cores: 2 %, 10 %",
        remedy="take another machine or another hour",
        disturbs=True,
    ),
    FlagKind(
        "cpu_shared",
        "W, I",
        found="other processes used the cores",
        raised_if="other processes used the cores: 5 %, 25 %",
        remedy=_END_OTHERS,
        disturbs=True,
    ),
    FlagKind(
        "memory_pressure",
        "W, I",
        found="processes waited for memory",
        raised_if="processes waited for memory: 1 %, 10 %",
        remedy=_END_OTHERS,
        disturbs=True,
    ),
    FlagKind(
        "generator_bound",
        "W, I",
        found="the sender of the requests was too busy",
        raised_if="the sender used 80 %, 95 % of a core, or saw answers late, by a tenth of an iteration",
        remedy="send less, free the sender's cores, or move the server to another machine",
        mended_by="send less at once or at lower rates, or free the sender's cores",
        if_all="latencies are too high by that, so free cores for the sender, or ask from another machine",
    ),
    FlagKind(
        "seen_late",
        "W, I",
        found="the sender of the requests, which was not busy, saw answers late",
        raised_if="the same, though it was not busy",
        remedy="measure again, or ask from another machine",
        if_all="the machine of the sender was stopped or shared for moments, as virtual ones are, so measure again, or "
        "ask from another machine",
    ),
    FlagKind(
        "throttled",
        "W",
        found="clocks were lowered",
        raised_if="clocks were lowered: heat 1 %, power 10 % of a pass",
        remedy="cool the device, or reset its power limit",
        if_all="the device was at its limit of power or heat, as it will be in use",
    ),
    FlagKind(
        "swapping",
        "W",
        found="memory was swapped",
        raised_if="1 MiB was swapped",
        remedy=_END_OTHERS,
        disturbs=True,
    ),
    FlagKind(
        "preemptions",
        "W",
        found="the KV cache was full, and sequences were computed again",
        remedy=_MORE_CACHE,
        if_all="the speeds are those of a KV cache that is too small for the load",
    ),
    FlagKind(
        "decode_outside_graphs",
        "W",
        found="decode steps ran outside of captured graphs",
        raised_if="5 % of decode steps, where the engine captures graphs",
        remedy="lower `max_num_seqs`, or raise `max_cudagraph_capture_size` in `compilation_config` to the next "
        "multiple of 16",
        if_all="the speeds are those of steps that are started kernel by kernel",
    ),
    FlagKind(
        "text_not_real",
        "W",
        found="drafts are accepted by chance, so the text is not real",
        remedy="nothing: speeds hold",
        if_all="speeds hold for the accepted length that was asked for",
    ),
    FlagKind(
        "prompts_repeated",
        "W",
        found="requests repeated an earlier prompt",
    ),
    FlagKind(
        "batch_not_at_once",
        "W",
        found="fewer sequences ran together than were submitted",
        remedy=_MORE_CACHE,
    ),
    FlagKind(
        "setting_without_effect",
        "W",
        found="the engine ignored an argument",
        remedy=_NOT_MEASURED,
    ),
    FlagKind(
        "engine_fallback",
        "W",
        found="the engine fell back to a slower kernel",
        remedy=_NOT_MEASURED,
        if_all="speed-ups hold for machines without the faster kernel; with it all are faster",
    ),
    FlagKind(
        "device_shared",
        "W",
        found="others used the device",
        raised_if="others held 256 MiB of the device",
        remedy=_END_OTHERS,
        disturbs=True,
    ),
    FlagKind(
        "warmup_too_short",
        "W",
        found="the first passes were slower",
        remedy="without other flags, raise `warmup_iterations` as the sentence says",
    ),
    FlagKind(
        "not_steady",
        "W",
        found="passes jumped, drifted or scattered",
        remedy=(
            "remove the cause of other flags; without any, believe the verdict, whose interval contains the spread, "
            "or add launches"
        ),
    ),
    FlagKind(
        "prompts_as_text",
        "W",
        found="the server takes prompts only as text, so lengths are approximate",
        remedy=_ABOUT,
        if_all="compare only with servers that have this flag",
    ),
    FlagKind(
        "plain_sampling",
        "W",
        found="the server does not take all sampling parameters",
        remedy="texts may end early: do not compare throughput with a server without this flag",
        if_all="texts may end early, so compare only with servers that have this flag",
    ),
    FlagKind(
        "tokens_claimed",
        "W",
        found="the server does not return tokens, so their number is what it says",
        remedy=_ABOUT,
        if_all="compare only with servers that have this flag",
    ),
    FlagKind(
        "replicas_differ",
        "W",
        found="engines of a step differ",
        remedy=_ALIKE,
    ),
    FlagKind(
        "replicas_apart",
        "W",
        found="engines of a step did not start together",
        raised_if="engines of a step started 1 % of it apart",
        remedy=_ALIKE,
    ),
    FlagKind(
        "not_in_turn",
        "W",
        found="it was measured at another time than the baseline",
        remedy=_IN_PAIRS,
    ),
    FlagKind(
        "not_interleaved",
        "W",
        found="it was measured in another block than the baseline",
        remedy=_IN_PAIRS,
    ),
    FlagKind(
        "shared_node",
        "W",
        found="other launches ran on the machine",
        remedy=(
            "on accelerators nothing if all launches have it; on a CPU set [`isolation: "
            "exclusive`](clusters.md#side-by-side-or-alone) and measure again"
        ),
        if_all="ratios hold, since all were measured so",
    ),
    FlagKind(
        "other_device",
        "W",
        found="it ran on another device than the baseline",
        remedy=_SAME_PLACE,
    ),
    FlagKind(
        "other_node",
        "W",
        found="it ran on another node than the baseline",
        remedy=_SAME_PLACE,
    ),
    FlagKind(
        "other_neighbours",
        "W",
        found="other launches ran beside it than beside the baseline",
        remedy=_SAME_PLACE,
    ),
)

_OWN = (kind for mode in MODES.values() if mode.flags for kind in mode.flags.get())

FLAGS: dict[str, FlagKind] = {kind.code: kind for kind in (*_SHARED, *_OWN)}
"""Code -> kind of flag."""

MEANINGS = {code: kind.found for code, kind in FLAGS.items()}
"""Code -> what was found."""

DISTURBED = frozenset(code for code, kind in FLAGS.items() if kind.disturbs)
"""Flags of a machine that others disturbed."""
