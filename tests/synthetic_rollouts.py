"""Records of rollouts for tests: any record as if a router had shared its passes out among engines."""

from __future__ import annotations

from collections.abc import Sequence

from synthetic_records import make_record, make_spec

from rollout_bench.contracts.record import (
    ClientUse,
    Iteration,
    Record,
    ReplicaPass,
    RouterUse,
)
from rollout_bench.contracts.spec import RolloutSpec, RouterPolicy, Spec, replicas


def rollout_spec(
    quant: str = "bf16",
    workload: str = "small",
    *,
    router: RouterPolicy | None = None,
    engines: int = 1,
) -> Spec:
    """Return a spec with a setting for each router but least_in_flight."""
    router = router or ("least_in_flight" if engines > 1 else None)
    spec = make_spec(quant=quant, workload=workload, args={"data_parallel_size": engines} if engines > 1 else {})
    setting = None if router == "least_in_flight" else router
    return spec.model_copy(update={"mode": "rollout", "rollout": RolloutSpec(router=router), "setting": setting})


def rollout_record(spec: Spec | None = None, launch: int = 0, rates: Sequence[float] = (400.0, 410.0, 420.0)) -> Record:
    """Return a record of `spec`, by default of two engines, whose iterations have these output tokens per second."""
    return shared_out(make_record(spec or rollout_spec(engines=2), launch, rates))


def shared_out(record: Record) -> Record:
    """Return `record` as that of a rollout, of whose engines the first takes the whole step and the others half."""
    iterations = [_shared_out(one, record.spec) for one in record.iterations]
    return record.model_copy(update={"iterations": iterations})


def _shared_out(one: Iteration, spec: Spec) -> Iteration:
    engines = replicas(spec)
    parts = [
        ReplicaPass(
            start_offset_s=0,
            elapsed_s=one.elapsed_s * (1 if number == 0 else 0.5),
            requests=one.requests // engines,
            sequences=one.sequences // engines,
            prompt_tokens=one.prompt_tokens // engines,
            cached_prompt_tokens=one.prompt_tokens // engines // 4,
            output_tokens=one.output_tokens // engines,
            prompts=6 + number,
            preemptions=2,
            peak_running=10 + number,
            kv_cache_peak=0.25 + 0.25 * number,
        )
        for number in range(engines)
    ]
    more = {
        "cached_prompt_tokens": one.prompt_tokens // 4,
        "replicas": parts,
        "client": ClientUse(cpu_share=0.1, loop_delay_median_s=0.0001, loop_delay_p99_s=0.002),
        "router": RouterUse(decisions=100, decide_s=0.0005, decide_max_s=0.0001, handing_out_s=0.012),
    }
    return one.model_copy(update=more)
