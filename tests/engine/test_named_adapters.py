"""Every request of a pass names the adapter: the engine's own entry sees it, in each mode that has one."""

import contextlib
import json
from pathlib import Path

import psutil
import pytest
from launching import SETTINGS, tiny_spec, with_adapter
from needing_vllm import run_program

from rollout_bench.checkpoints.build import build_checkpoint
from rollout_bench.checkpoints.shapes import SyntheticModel
from rollout_bench.contracts.spec import Spec

pytestmark = pytest.mark.engine

PROGRAM = """
import json, os, sys
from vllm.v1.engine.core_client import MPClient
from vllm.v1.engine.input_processor import InputProcessor
from rollout_bench.contracts.modes import MODES
from rollout_bench.contracts.spec import Spec
from rollout_bench.measure.engine.context import EngineContext
from rollout_bench.measure.launch.protocol import Job
from rollout_bench.modes.rollout.async_engine import KeptEngine, open_async

names, process, cores, connect = [], InputProcessor.process_inputs, [], MPClient.__init__

def connecting(self, *given, **more):
    cores.append(self)
    connect(self, *given, **more)

MPClient.__init__ = connecting

def noting(*given, **more):
    request = process(*given, **more)
    names.append(request.lora_request and request.lora_request.lora_name)
    return request

InputProcessor.process_inputs = noting
model, text = sys.argv[1:]
spec = Spec.model_validate_json(text)
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = str(int(spec.engine.multiprocess))
job = Job(spec=spec, model=model, launch=0, timeout_s=600)
context = EngineContext(send=lambda event: None, await_turn=lambda: None)

async def generated(kept):
    entry = await open_async(job, context, kept)
    for _ in range(4):
        await entry.generate([1, 2, 3], 4)

if spec.mode == "rollout":
    kept = KeptEngine()
    kept.runner.run(generated(kept))
else:
    MODES[spec.mode].worker.get()(job, context)
print("NAMES", json.dumps(names), flush=True)
for core in cores:
    core.shutdown()  # which removes its shared memory
"""


def _works_in(process: psutil.Process, folder: Path) -> bool:
    with contextlib.suppress(psutil.Error):
        return Path(process.cwd()) == folder
    return False


@pytest.mark.parametrize("mode", ["offline", "cycle", "rollout", "steps"])
def test_every_request_but_the_probe_of_the_base_names_the_adapter(mode: str, tmp_path: Path) -> None:
    shape = SyntheticModel(preset="qwen3-tiny", shape={"tie_word_embeddings": False}).resolve()
    build_checkpoint(shape, "bf16", tmp_path / "model")
    args = {**SETTINGS["engine"]["args"], "load_format": "auto", "max_num_seqs": 2, "kv_cache_memory_bytes": 1 << 26}
    spec = with_adapter(tiny_spec(engine={"args": args, "multiprocess": mode in ("rollout", "steps")}), rank=4)
    own = {
        "cycle": {"cycle": {"sleep": "none", "update": "in_process"}},
        "rollout": {"rollout": {"router": "sticky"}},
        "steps": {"steps": {"seconds": 0.5}},
    }
    spec = Spec.model_validate({**spec.model_dump(mode="json"), "mode": mode, **own.get(mode, {})})
    said = run_program(PROGRAM, str(tmp_path / "model"), spec.model_dump_json(), folder=tmp_path)
    assert [left for left in psutil.process_iter() if _works_in(left, tmp_path)] == [], "its engine's core has ended"
    line = next(line for line in said.splitlines() if line.startswith("NAMES "))
    base, *others = json.loads(line.removeprefix("NAMES "))
    assert base is None
    assert len(others) > 4
    assert set(others) == {"adapter"}
