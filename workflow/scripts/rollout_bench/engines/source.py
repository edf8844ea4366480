"""The requests of a job: in both modes from the same sampler, with the same arguments."""

from __future__ import annotations

from rollout_bench.engines.events import Job
from rollout_bench.plan.devices import replicas
from rollout_bench.workloads.parts import Part
from rollout_bench.workloads.requests import Source


def source_of(job: Job, vocabulary: int) -> Source:
    """Where the requests of `job` come from, for a model with `vocabulary` token ids."""
    args = job.spec.engine.args
    tokenizer = args.get("tokenizer") or job.model
    part = Part(job.replica, replicas(job.spec))
    return Source(job.spec.workload, vocabulary, tokenizer, job.dataset, bool(args.get("trust_remote_code")), part)
