"""The engine's start-up log as numbers."""

from __future__ import annotations

from rollout_bench.measure.launch.flags import read_log

GPU = """\
(Worker_TP0 pid=71) INFO 07-01 10:00:01 [default_loader.py:384] Loading weights took 12.31 seconds
(Worker_TP1 pid=72) INFO 07-01 10:00:02 [default_loader.py:384] Loading weights took 12.90 seconds
(Worker_TP0 pid=71) INFO 07-01 10:00:02 [runner.py:48] Model loading took 3.22 GiB memory and 13.512345 seconds
(Worker_TP0 pid=71) INFO 07-01 10:00:30 [monitor.py:35] torch.compile took 25.17 s in total
(Worker_TP0 pid=71) INFO 07-01 10:00:30 [decorators.py:319] [backbone] Directly load AOT compilation from path /x
(Worker_TP1 pid=72) INFO 07-01 10:00:30 [decorators.py:319] [backbone] Directly load AOT compilation from path /x
(Worker_TP0 pid=71) INFO 07-01 10:00:30 [monitor.py:91] [backbone] Initial profiling/warmup run took 0.31 s
(Worker_TP0 pid=71) INFO 07-01 10:00:31 [gpu_worker.py:436] Available KV cache memory: 48.25 GiB
(EngineCore pid=70) INFO 07-01 10:00:31 [utils.py:13] GPU KV cache size: 451,712 tokens
(Worker_TP0 pid=71) INFO 07-01 10:00:52 [runner.py:51] Graph capturing finished in 21 secs, took 0.60 GiB
(Core pid=70) INFO 07-01 10:00:53 [core.py:281] init engine (profile, create kv cache, warmup model) took 50.31 seconds
"""

CPU = """\
(MainProcess pid=1) INFO 11-20 06:40:09 [default_loader.py:502] Loading weights took 0.11 seconds
(MainProcess pid=1) INFO 11-20 06:40:09 [utils.py:23] CPU KV cache size: 2,097,152 tokens, Maximum concurrency
(MainProcess pid=1) INFO 11-20 06:40:10 [core.py:402] init engine (profile, create kv cache, warmup model) took 1.50 s
"""


def test_a_gpu_s_start_up_is_read_and_the_slowest_worker_counts() -> None:
    assert read_log(GPU) == {
        "weights_load_s": 12.90,
        "model_memory_gib": 3.22,
        "model_load_s": 13.512345,
        "compile_s": 25.17,
        "compile_cache_loads": 2.0,
        "profile_run_s": 0.31,
        "graph_capture_s": 21.0,
        "graph_capture_gib": 0.60,
        "engine_init_s": 50.31,
        "kv_cache_memory_gib": 48.25,
        "kv_cache_tokens": 451712.0,
    }


def test_a_cpu_s_start_up_is_read() -> None:
    assert read_log(CPU) == {"weights_load_s": 0.11, "engine_init_s": 1.50, "kv_cache_tokens": 2097152.0}


COMPILED = """\
(MainProcess pid=1) INFO 11-20 09:34:49 [base_loader.py:82] Initializing model took 0.149611 seconds
(MainProcess pid=1) INFO 11-20 23:59:50 [cpu_model_runner.py:87] Warming up model for the compilation...
(MainProcess pid=1) INFO 11-21 00:00:13 [decorators.py:743] [backbone] saved AOT compiled function to /x
(MainProcess pid=1) INFO 11-21 00:00:14 [cpu_model_runner.py:91] Warming up done.
"""


def test_a_cpu_s_compilation_is_read_from_the_times_of_its_two_lines() -> None:
    assert read_log(COMPILED) == {"model_build_s": 0.149611, "compile_s": 24.0}
    other = COMPILED.replace("pid=1", "pid=2").replace("00:00:14", "00:00:19")
    assert read_log(COMPILED + other)["compile_s"] == 29.0


def test_a_log_that_says_nothing_gives_nothing() -> None:
    assert read_log("") == {}
    assert read_log("INFO Loading weights took long") == {}
