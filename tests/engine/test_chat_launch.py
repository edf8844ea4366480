"""One launch of a server that is asked for chat completions, on the real engine: every token is counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from launching import TINY_MODEL, Launching, online_spec, own_flags

from rollout_bench.checkpoints.formats import tokenizer_files
from rollout_bench.contracts.side_files import read_sequences
from rollout_bench.contracts.store import sequences_path

pytestmark = [pytest.mark.engine, pytest.mark.untimed]


def test_a_model_without_a_chat_template_is_asked_for_chats_and_tokens_are_counted(
    tmp_path: Path,
) -> None:
    model = tmp_path / "chatting"
    model.mkdir()
    for name, content in {"config.json": TINY_MODEL, **tokenizer_files(2048, 2048)}.items():
        (model / name).write_text(json.dumps(content))
    spec = online_spec(
        {"points": [{"concurrency": 2}], "api": "chat", "token_ids": False},
        workload={"prompt_tokens": 40, "output_tokens": 8, "logprobs": 0},
        engine={"multiprocess": False},
        measuring={"warmup_iterations": 1, "iterations": 1},
    )
    launch = Launching(tmp_path / "run", spec, model=model)
    assert launch.finish() == 0, launch.said + launch.log_text()[-3000:]
    record, rows = launch.record(), read_sequences(sequences_path(launch.out), launch.record())
    assert {(row.output_tokens, row.finish_reason, row.status) for row in rows} == {(8, "length", 200)}
    assert record.engine.served is not None
    assert "prompts_as_text" in {flag.code for flag in record.validity}
    assert all(flag.severity == "warning" for flag in own_flags(record))
    for it in record.iterations:
        assert it.server is not None
        assert (it.server.requests, it.server.output_tokens) == (8, 64)
        assert it.server.prompt_tokens == it.prompt_tokens  # the server's own count, template and all
