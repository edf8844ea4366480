"""The requests of a job: in both modes from the same sampler, with the same arguments."""

from __future__ import annotations

from rollout_bench.engines.events import Job
from rollout_bench.workloads.requests import Source


def source_of(job: Job, vocabulary: int) -> Source:
    """Where the requests of `job` come from, for a model with `vocabulary` token ids."""
    args = job.spec.engine.args
    tokenizer = args.get("tokenizer") or job.model
    return Source(job.spec.workload, vocabulary, tokenizer, job.dataset, bool(args.get("trust_remote_code")))
