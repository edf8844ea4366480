"""The table of known causes turns what an engine says into a cause and a fix."""

from __future__ import annotations

import time

import pytest

from rollout_bench.measure.launch.failures import diagnose, died

ENGINE_CORE_DEAD = "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"

SAID = [
    ("no_tokenizer", "UserError: models/m: has no tokenizer that works: Can't load tokenizer for 'models/m'. If you"),
    ("impossible_load", "UserError: workload w: 600 distinct prompts of 1 tokens are not possible with a vocabulary"),
    ("impossible_load", "UserError: workload w: a prompt of its data set has token id 4096, the vocabulary 4096 ids"),
    (
        "no_kv_cache_memory",
        "ValueError: No available memory for the cache blocks. Try increasing it",
    ),
    (
        "no_kv_cache_memory",
        "ValueError: Available memory on node 0 (12.0/14.09 GiB) on kv cache allocation is less than requested memory "
        "for kv (400.0 GiB). Decrease --kv-cache-memory-bytes, VLLM_CPU_KVCACHE_SPACE, or reduce CPU memory used by "
        "other processes.",
    ),
    (
        "no_kv_cache_memory",
        "ValueError: Available memory on node 0 (9.4/11.8 GiB) on kv cache allocation is less than requested memory "
        "for kv (-0.07/1.18 GiB). Reduce CPU memory used by other processes.",
    ),
    (
        "device_memory_taken",
        "ValueError: Free memory on device cuda:0 (3.1/79.1 GiB) on startup is less than desired GPU memory "
        "utilization (0.9, 71.2 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes.",
    ),
    (
        "kv_cache_too_small",
        "ValueError: To serve at least one request with the models's max seq len (40960), (4.38 GiB KV cache is "
        "needed, which is larger than the available KV cache memory (2.11 GiB).",
    ),
    (
        "max_model_len_too_large",
        "ValidationError: 1 validation error for ModelConfig\n  Value error, User-specified max_model_len (1048576) is "
        "greater than the derived max_model_len (max_position_embeddings=2048.0 or model_max_length=None)",
    ),
    ("out_of_memory", "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total"),
    ("out_of_memory", "RuntimeError: CUDA Error: out of memory at /workspace/csrc/cumem_allocator.cpp:119"),
    ("out_of_memory", "RuntimeError: NPU out of memory. Tried to allocate 1.50 GiB (NPU 0; 60.97 GiB total capacity"),
    ("out_of_memory", "RuntimeError: [enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
    ("unsupported_quantization", "ImportError: Requires mslk >= 1.0.0"),
    ("unsupported_quantization", "NotImplementedError: Int4PlainInt32Tensor does not support device 'cpu' yet."),
    (
        "unsupported_quantization",
        "RuntimeError: _C::static_scaled_fp8_quant() expected at most 0 argument(s) but received 4 argument(s). "
        "Declaration: _C::static_scaled_fp8_quant() -> ()",
    ),
    ("unsupported_kv_cache_dtype", "NotImplementedError: FP8 KV cache on CPU requires x86 with AVX-512 or AMX."),
    ("unsupported_kv_cache_dtype", "NotImplementedError: FP8 KV cache requires head_size divisible by 32 on CPU."),
    (
        "unsupported_kv_cache_dtype",
        "ValueError: No valid attention backend found for cuda with AttentionSelectorConfig(head_size=80, "
        "kv_cache_dtype=fp8). Reasons: {FLASH_ATTN: [kv_cache_dtype not supported]}.",
    ),
    (
        "unsupported_quantization",
        "ValidationError: 1 validation error for VllmConfig\n  Value error, Cannot find the config file for awq",
    ),
    (
        "unsupported_quantization",
        "ValueError: Value error, Unknown quantization method: nonsense. Must be one of ['awq']",
    ),
    ("unsupported_quantization", "ValueError: Failed to find a kernel that can implement the WNA16 linear layer."),
    ("unsupported_quantization", "NotImplementedError: No Int8 MoE backend supports the deployment configuration"),
    ("missing_weights", "RuntimeError: Cannot find any model weights with `models/x`"),
    ("missing_weights", "OSError: x/y does not appear to have a file named config.json. Checkout 'https://..' for"),
    ("missing_weights", "huggingface_hub.errors.LocalEntryNotFoundError: Cannot find an appropriate cached snapshot"),
    ("damaged_weights", "SafetensorError: Error while deserializing header: header too small"),
    ("unknown_architecture", "ValueError: Model architectures ['GuessWhoForCausalLM'] are not supported for now."),
    ("trust_remote_code", "ValueError: The repository x contains custom code which must be executed to correctly load"),
    (
        "weights_mismatch",
        "KeyError: 'x'\nValueError: There is no module or parameter named 'mlp.w1' in QwenForCausalLM",
    ),
    (
        "unsupported_dtype",
        "ValidationError: 2 validation errors for ModelConfig\ndtype.literal['auto','half']\n  Input",
    ),
    ("sleep_mode_unsupported", "Value error, Sleep mode is not supported on current platform."),
    ("too_few_devices", "ValueError: World size (8) is larger than the number of available GPUs (1) in this node."),
    ("tensor_parallel_size", "Total number of attention heads (4) must be divisible by tensor parallel size (3)."),
    ("device_broken", "torch.AcceleratorError: CUDA error: uncorrectable ECC error encountered"),
    ("device_broken", "RuntimeError: CUDA error: all CUDA-capable devices are busy or unavailable"),
    ("cuda_driver", "RuntimeError: The NVIDIA driver on your system is too old (found version 12020)."),
    ("cann_missing", "ImportError: libascend_hal.so: cannot open shared object file: No such file or directory"),
    ("cann_missing", "ImportError: libhccl.so: cannot open shared object file: No such file or directory"),
    ("no_platform", "RuntimeError: Device string must not be empty"),
    ("port_or_ipc", "zmq.error.ZMQError: Address already in use (addr='tcp://127.0.0.1:5557')"),
    ("bad_engine_argument", "TypeError: EngineArgs.__init__() got an unexpected keyword argument 'max_num_sekvs'"),
    ("missing_package", "ModuleNotFoundError: No module named 'torchao'"),
    ("broken_install", "RuntimeError: operator torchvision::nms does not exist"),
    ("disk_full", "OSError: [Errno 28] No space left on device: '/tmp/x'"),
]


@pytest.mark.parametrize(("category", "exception"), SAID)
def test_known_words_lead_to_their_category(category: str, exception: str) -> None:
    cause = diagnose(exception, "")
    assert cause.category == category
    assert "\n" not in cause.cause
    assert len(cause.cause) < 450


@pytest.mark.parametrize(("category", "exception"), SAID)
def test_the_engine_core_s_words_are_found_in_the_log(category: str, exception: str) -> None:
    stamp = "(EngineCore pid=7) ERROR 11-20 06:40:29 [core.py:946] "
    log = "".join(f"{stamp}{line}\n" for line in ["EngineCore failed to start.", *exception.splitlines()])
    cause = diagnose(ENGINE_CORE_DEAD, log)
    assert cause.category == category
    assert "core.py" not in cause.cause


def test_the_reason_that_pydantic_puts_on_its_second_line_is_quoted() -> None:
    cause = diagnose(
        "ValidationError: 1 validation error for VllmConfig\n  Value error, no such thing [type=value_error, "
        "input_value=X()]\n    For further information visit https://errors.pydantic.dev/2.14/v/value_error",
        "",
    )
    assert cause.category == "bad_engine_argument"
    assert cause.cause.endswith("ValidationError: 1 validation error for VllmConfig Value error, no such thing")


@pytest.mark.parametrize("filler", ["x", "x\n", "divisible by ", "Total number of attention heads ", "ERROR 1 "])
def test_an_error_of_50_mb_is_searched_in_no_time(filler: str) -> None:
    exception = f"RuntimeError: {filler * (50_000_000 // len(filler))} CUDA driver version is insufficient"
    began = time.process_time()
    cause = diagnose(exception, exception)
    assert cause.category == "cuda_driver"
    assert len(cause.cause) < 450
    assert time.process_time() - began < 3


def test_warnings_that_quote_an_error_are_no_cause() -> None:
    log = "(MainProcess pid=1) WARNING 11-20 06:40:39 [base.py:380] ValueError: No module named 'x'\n"
    assert diagnose("EngineDeadError: EngineCore encountered an issue.", log).category == "crash"
    assert "No module" not in diagnose("EngineDeadError: EngineCore encountered an issue.", log).cause


def test_an_unknown_exception_is_a_crash_that_quotes_it() -> None:
    cause = diagnose("KeyError: 'rope'", "ValueError: something earlier\n")
    assert (cause.category, cause.cause) == ("crash", "the engine failed: KeyError: 'rope'")


@pytest.mark.parametrize(
    "known", ["ValueError: no kernel for \x1b[2J", "torch.OutOfMemoryError: CUDA out of memory \x1b[2J"]
)
def test_what_the_engine_says_is_quoted_in_one_line_that_only_can_be_read(known: str) -> None:
    cause = diagnose(f"{known}\x07{'x' * 1000}", "").cause
    assert "\\x1b[2J\\x07xxx" in cause
    assert cause.isprintable()
    assert len(cause) < 500


def test_a_signal_is_a_crash_and_want_of_memory_is_told_apart() -> None:
    assert died(-11, "", out_of_memory=False).cause == "the engine process was ended by signal 11"
    assert died(-9, "", out_of_memory=True).category == "out_of_memory"
    assert (
        died(1, "ImportError: libhccl.so: cannot open shared object file", out_of_memory=False).category
        == "cann_missing"
    )
