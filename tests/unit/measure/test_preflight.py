"""What is found before an engine is started, so that nobody waits for its import."""

import pytest
from launching import tiny_spec

from rollout_bench.contracts.engine_memory import GIB
from rollout_bench.contracts.spec import Spec
from rollout_bench.measure.launch import preflight


def with_args(**args: object) -> Spec:
    spec = tiny_spec()
    kept = {name: value for name, value in spec.engine.args.items() if name != "kv_cache_memory_bytes"}
    engine = spec.engine.model_copy(update={"args": {**kept, **args}, "environment": {}})
    return spec.model_copy(update={"engine": engine})


def test_an_engine_whose_share_of_the_memory_is_taken_is_not_started(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(preflight, "node_bytes", lambda: 24 * GIB)
    monkeypatch.setattr(preflight, "available_bytes", lambda: 20 * GIB)
    monkeypatch.setattr(preflight, "FREED_S", 0.0)
    monkeypatch.setattr(preflight, "missing_files", lambda *_: None)
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    found = preflight.check_before_start(with_args(), str(tmp_path), None)
    assert found is not None
    assert found.category == "device_memory_taken"
    assert found.cause == "on cpu vLLM takes 92 % of this machine's memory, 22.1 GiB, and 20.0 GiB are free"
    for fitting in ({"gpu_memory_utilization": 0.8}, {"kv_cache_memory_bytes": GIB}):
        assert preflight.check_before_start(with_args(**fitting), str(tmp_path), None) is None
    free = iter([20 * GIB, 23 * GIB])
    monkeypatch.setattr(preflight, "FREED_S", 60.0)
    monkeypatch.setattr(preflight, "available_bytes", lambda: next(free))
    assert preflight.check_before_start(with_args(), str(tmp_path), None) is None, "what took it has ended meanwhile"
