"""A calibration of the real engine: its steps have all kinds of work, and their times add up to the passes."""

import pytest
from launching import Launching, tiny_spec

from rollout_bench.contracts.spec import Spec
from rollout_bench.contracts.steps import StepRow, Steps, read_steps

pytestmark = pytest.mark.engine

ARGS = {"max_num_seqs": 6, "max_num_batched_tokens": 1024, "max_model_len": 1100, "enforce_eager": True}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Steps, list[StepRow]]:
    spec = tiny_spec().model_dump(mode="json")
    engine = spec["engine"] | {"multiprocess": True, "args": {**spec["engine"]["args"], **ARGS}}
    spec |= {"mode": "steps", "steps": {"seconds": 1.0}, "engine": engine}
    launch = Launching(tmp_path_factory.mktemp("steps"), Spec.model_validate(spec))
    assert launch.finish() == 0, launch.said + launch.log_text()[-3000:]
    return read_steps(launch.out)


def test_every_batch_size_decodes_at_several_contexts(found: tuple[Steps, list[StepRow]]) -> None:
    record, rows = found
    assert (record.max_num_seqs, record.max_num_batched_tokens, record.context_tokens) == (6, 1024, 1100)
    for batch in (1, 2, 3, 4, 6):
        contexts = {row.context_tokens // batch for row in rows if not row.prefills and row.decodes == batch}
        assert max(contexts) > min(contexts) + 8


def test_prompts_of_several_sizes_begin_in_a_full_batch(found: tuple[Steps, list[StepRow]]) -> None:
    record, rows = found
    assert len({row.prefill_tokens for row in rows if row.prefills and row.decodes == 5}) >= 4
    assert 0 < record.arrival_s < 0.1
    assert max(row.tokens for row in rows) == 1024
    first = next(row for row in rows if row.prefills == 1 and not row.decodes)
    assert first.prefill_pairs >= first.prefill_tokens * (first.prefill_tokens + 1) // 2


def test_a_step_takes_longer_with_more_work(found: tuple[Steps, list[StepRow]]) -> None:
    _, rows = found
    few = min(row.elapsed_s for row in rows if not row.prefills and row.decodes == 1)
    full = min(row.elapsed_s for row in rows if row.tokens == 1024)
    assert full > few
