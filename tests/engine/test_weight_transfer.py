"""VLLM's own weight transfer as far as a CPU has it: its engine is made, and the calls are those that it wants."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from launching import SETTINGS, tiny_spec

from rollout_bench.checkpoints.build import build_checkpoint
from rollout_bench.checkpoints.shapes import SyntheticModel

pytestmark = pytest.mark.untimed

SHAPE = SyntheticModel(preset="qwen3-tiny", num_hidden_layers=1).resolve()

PROGRAM = """
import json, sys
from rollout_bench.contracts.spec import Spec
from rollout_bench.measure.engine.weight_updates import transfer_arguments

if __name__ == "__main__":
    from vllm import LLM

    llm = LLM(model=sys.argv[1], **json.loads(sys.argv[2]), **transfer_arguments(Spec.model_validate_json(sys.argv[3])))
    (rank,) = llm.collective_rpc("rollout_bench_target")
    llm.collective_rpc("rollout_bench_meet", kwargs={"info": {"packed": True}})
    llm.collective_rpc("rollout_bench_begin_transfer")
    try:
        llm.collective_rpc("rollout_bench_receive", kwargs={"info": {"names": [], "dtype_names": [], "shapes": []}})
    except Exception as error:
        rank["refused"] = str(error)
    with open("rank.json", "w") as file:
        json.dump(rank, file)
"""


def test_vllm_takes_all_of_a_transfer_by_ipc_but_what_needs_a_gpu(tmp_path: Path):
    build_checkpoint(SHAPE, "bf16", tmp_path / "model")
    (tmp_path / "program.py").write_text(PROGRAM)
    spec: dict[str, Any] = {
        **tiny_spec().model_dump(mode="json"),
        "mode": "cycle",
        "model": {"name": "tiny", "weights": None, "synthetic": SHAPE.model_dump(mode="json")},
        "cycle": {"sleep": "none", "update": "ipc", "bucket_mb": 1},
    }
    arguments = {
        "skip_tokenizer_init": True,
        "max_model_len": 64,
        "max_num_seqs": 4,
        "kv_cache_memory_bytes": 64 << 20,
        "enforce_eager": True,
    }
    command = [sys.executable, tmp_path / "program.py", tmp_path / "model", json.dumps(arguments), json.dumps(spec)]
    environment = {**os.environ, **SETTINGS["engine"]["environment"], "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    rank = json.loads((tmp_path / "rank.json").read_text())
    assert {"names", "dtype_names", "shapes", "tensor_sizes", "ipc_handles"} <= set(rank["update_fields"])
    assert "packed" in rank["init_fields"] + rank["update_fields"]
    assert "ValueError: Either `ipc_handles` or `ipc_handles_pickled` must be provided" in rank["refused"]
