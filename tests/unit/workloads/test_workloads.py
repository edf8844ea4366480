"""Prompts are seeded, distinct, new in every iteration, and the same wherever they are made."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from made_workloads import workload

from rollout_bench.core.errors import UserError
from rollout_bench.workloads.requests import prompts, token_range


def test_as_many_prompts_of_the_length_asked_for_all_different() -> None:
    found = prompts(workload(), 2048, launch=0, iteration=0)
    assert len(found) == 8
    assert {len(prompt) for prompt in found} == {16}
    assert len({tuple(prompt) for prompt in found}) == 8


def test_the_same_arguments_give_the_same_prompts_in_any_process() -> None:
    program = (
        f"import sys; sys.path[:] = {[str(Path(__file__).parent), *sys.path]}\n"
        "from test_workloads import digest; print(digest())"
    )
    other = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "1"}
    )
    assert other.stdout.strip() == digest() == "4062cd364205a9de"


def digest() -> str:
    return hashlib.sha256(repr(prompts(workload(), 2048, launch=1, iteration=2)).encode()).hexdigest()[:16]


@pytest.mark.parametrize("other", [{"launch": 1}, {"iteration": 1}, {"launch": 1, "iteration": 1}])
def test_launches_and_iterations_share_no_prompt(other: dict[str, int]) -> None:
    first = prompts(workload(), 2048, launch=0, iteration=0)
    second = prompts(workload(), 2048, **{"launch": 0, "iteration": 0, **other})
    assert not {tuple(prompt) for prompt in first} & {tuple(prompt) for prompt in second}


def test_ids_leave_out_both_ends_of_the_vocabulary() -> None:
    ids = {token for prompt in prompts(workload(prompts=200), 1024, 0, 0) for token in prompt}
    assert token_range(1024) == range(32, 992)
    assert min(ids) >= 32
    assert max(ids) < 992
    assert len(ids) > 900  # and use the rest


def test_more_distinct_prompts_than_the_vocabulary_allows_are_refused() -> None:
    with pytest.raises(UserError, match="600 distinct prompts of 1 tokens"):
        prompts(workload(prompts=600, prompt_tokens=1), 1024, 0, 0)


def test_prompts_of_one_token_are_distinct_too() -> None:
    found = prompts(workload(prompts=400, prompt_tokens=1), 1024, 0, 0)
    assert len({prompt[0] for prompt in found}) == 400
