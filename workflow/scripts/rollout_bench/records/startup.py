"""What a record keeps of a launch's start."""

from __future__ import annotations

from pydantic import Field

from rollout_bench.plan.strict import Strict, absent
from rollout_bench.records.replicas import ReplicaStart


class Startup(Strict):
    """What the time before the first iteration went to."""

    process_s: float | None = Field(
        None,
        ge=0,
        description="From the launch's beginning until the engine process ran, in seconds. Null in earlier records.",
    )
    import_s: float = Field(ge=0, description="Importing the engine, in seconds.")
    init_s: float = Field(ge=0, description="Constructing the engine until it takes requests, in seconds.")
    read_ahead_bytes: int | None = Field(
        None,
        ge=0,
        description="Bytes of the next launch's weights that were read meanwhile. Null in earlier records.",
    )
    reported: dict[str, float] = Field(
        {},
        description=(
            "What the engine logged: model_build_s, weights_load_s, online_quantization_s, model_load_s, "
            "model_memory_gib, compile_s (on cpu to whole seconds), compile_cache_loads (graphs that came from the "
            "compile cache), profile_run_s, graph_capture_s, graph_capture_gib, engine_init_s, kv_cache_memory_gib."
        ),
    )
    replicas: list[ReplicaStart] | None = absent("The start of each replica; import_s and init_s are the slowest's.")
