"""What each flag of a launch means; docs/trust.md has its limits and docs/troubleshoot.md its remedy."""

MEANINGS = {
    "batch_not_at_once": "fewer sequences ran together than were submitted",
    "caches_not_as_asked": "the engine compiled although its caches were to be warm",
    "cpu_shared": "other processes used the cores",
    "cpu_steal": "other virtual machines used the cores",
    "cross_iteration_prefix_hits": "the prefix cache hit more than the samples of a prompt share",
    "cut_at_end": "requests were cut at the end of the load's time",
    "device_shared": "others used the device",
    "engine_fallback": "the engine fell back to a slower kernel",
    "generator_bound": "the sender of the requests was too busy",
    "lease_lost": "its lease was removed",
    "logprobs_missing": "log probabilities are missing or not finite",
    "memory_pressure": "processes waited for memory",
    "not_in_turn": "it was measured at another time than the baseline",
    "not_interleaved": "it was measured in another block than the baseline",
    "not_steady": "passes jumped, drifted or scattered",
    "other_device": "it ran on another device than the baseline",
    "other_model_files": "the model's files differ from those of a newer launch",
    "other_neighbours": "other launches ran beside it than beside the baseline",
    "other_node": "it ran on another node than the baseline",
    "output_changed": "the same weights gave other tokens or checksums after an update",
    "paused": "the engine, the launch or the machine was stopped",
    "plain_sampling": "the server does not take all sampling parameters",
    "preemptions": "the KV cache was full, and sequences were computed again",
    "prompts_as_text": "the server takes prompts only as text, so lengths are approximate",
    "prompts_repeated": "requests repeated an earlier prompt",
    "quant_not_proven": "weights or KV cache are not the quantization's",
    "replicas_apart": "engines of a step did not start together",
    "replicas_differ": "engines of a step differ",
    "requests_failed": "requests failed",
    "sent_late": "requests were sent later than due",
    "setting_without_effect": "the engine ignored an argument",
    "shared_node": "other launches ran on the machine",
    "swapping": "memory was swapped",
    "throttled": "clocks were lowered",
    "token_count": "sequences or tokens are missing",
    "tokens_claimed": "the server does not return tokens, so their number is what it says",
    "update_without_effect": "weights that had to change did not",
    "warmup_too_short": "the first passes were slower",
    "weights_differ": "an engine lacks the trainer's weights",
}
"""Code -> what was found."""

DISTURBED = frozenset({"cpu_steal", "cpu_shared", "device_shared", "memory_pressure", "swapping", "paused"})
"""Flags of a machine that others disturbed."""

MENDED_BY = {
    "generator_bound": "send less at once or at lower rates, or free the sender's cores",
    "quant_not_proven": "name the weights of the quantization, or leave it out (the flag says what was loaded)",
    "requests_failed": "read the server's log",
}
"""Code of an invalid launch that the same launch would have again -> what to change first."""

IF_ALL = {
    "engine_fallback": "speed-ups hold for machines without the faster kernel; with it all are faster",
    "generator_bound": "latencies are too high by that, so free cores for the sender, or ask from another machine",
    "plain_sampling": "texts may end early, so compare only with servers that have this flag",
    "preemptions": "the speeds are those of a KV cache that is too small for the load",
    "prompts_as_text": "compare only with servers that have this flag",
    "shared_node": "ratios hold, since all were measured so",
    "throttled": "the device was at its limit of power or heat, as it will be in use",
    "tokens_claimed": "compare only with servers that have this flag",
}
"""Code -> what follows if all launches have the flag."""
