"""Replicas of an offline experiment have prompts and lengths of their own."""

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from launching import SETTINGS, tiny_spec

from rollout_bench.contracts.load import DatasetSpec, LogNormal
from rollout_bench.contracts.spec import WorkloadSpec
from rollout_bench.measure.engine.vllm import source_of
from rollout_bench.measure.launch.protocol import Job
from rollout_bench.workloads.requests import ReplicaPart, Request, Source

LOAD = WorkloadSpec.model_validate_json(
    json.dumps(
        {
            **SETTINGS["workload"],
            "output_tokens": LogNormal(distribution="lognormal", median=30, sigma=1, low=1, high=300).model_dump(),
        }
    )
)


def requests(replica: int, replicas: int, workload: WorkloadSpec = LOAD, dataset: Path | None = None) -> list[Request]:
    return Source(workload, 2048, "no model", dataset, part=ReplicaPart(replica, replicas)).requests(0, 1)


@given(replicas=st.integers(1, 16))
def test_replica_0_gets_the_requests_of_a_single_engine(replicas: int) -> None:
    assert requests(0, replicas) == Source(LOAD, 2048, "no model").requests(0, 1)


def test_each_replica_has_prompts_and_lengths_of_its_own() -> None:
    found = [requests(replica, 4) for replica in range(4)]
    prompts = {tuple(request.prompt_token_ids) for asked in found for request in asked}
    assert len(prompts) == 4 * LOAD.prompts
    lengths = [tuple(request.output_tokens for request in asked) for asked in found]
    assert len({sum(each) for each in lengths}) == 4  # so that some are done before others


def test_replicas_share_a_data_set_in_the_files_order(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps({"prompt": [100 + n] * 4}) + "\n" for n in range(64)))
    workload = LOAD.model_copy(update={"dataset": DatasetSpec(format="prompts", sha256="0" * 64)})
    taken = [[r.prompt_token_ids[0] for r in requests(n, 2, workload, file) if r.sample == 0] for n in (0, 1)]
    assert taken == [[108, 109, 110, 111], [112, 113, 114, 115]]  # of the second iteration


def test_the_job_says_which_replica_s_requests_they_are() -> None:
    spec = tiny_spec(engine={"args": {**SETTINGS["engine"]["args"], "data_parallel_size": 2}})
    jobs = [Job(spec=spec, model="none", launch=0, timeout_s=1, replica=replica) for replica in (0, 1)]
    first, second = (source_of(job, 2048).requests(0, 0) for job in jobs)
    assert first[0].prompt_token_ids != second[0].prompt_token_ids
