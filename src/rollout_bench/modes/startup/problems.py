"""Flags of launches and categories of failures that only starts have."""

from rollout_bench.contracts.problems import FailureKind, FlagKind

FLAGS = (
    FlagKind(
        "caches_not_as_asked",
        "I",
        found="the engine compiled although its caches were to be warm",
        remedy="measure again; if it stays, set `startup.caches` to `cold`",
    ),
)

FAILURES = (FailureKind("no_room_for_caches", remedy="[measure a start](vllm-developers.md#measure-a-start)"),)
