"""What vLLM's processes note while they start: lines of its log that begin or end a phase, with the monotonic clock.

vLLM's own log has whole seconds. Each of its processes reads the same logging configuration while it imports vLLM, and
that names the handler here.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pydantic import ValidationError

from rollout_bench.contracts.fields import Strict

NOTES = "ROLLOUT_BENCH_START_NOTES"
"""Environment variable with the path of the file that takes notes; without it nothing is noted."""

NOTED = (
    r"Initializing a V1 LLM engine|Starting to load model|Loading weights on|Initializing model took"
    r"|Loading weights took|Model loading took|Start compiling function|Compiling model again"
    r"|Dynamo bytecode transform time|Compiling a graph for|Directly load"
    r"|torch\.compile (?:and initial profiling/warmup run together )?took"
    r"|saved AOT compiled function|Warming up model for the compilation"
    r"|Warming up done|Memory profiling takes|Available KV cache memory"
    r"|for KV cache on node|KV cache layout|KV cache size"
    r"|Capturing a cudagraph on|Graph capturing finished|init engine \("
)
"""The lines that are noted."""

_NOTED = re.compile(NOTED)

LONGEST = 200
"""Characters that are kept of a line."""


class StartNote(Strict):
    """A line of vLLM's log."""

    at: float
    """When, on the machine's monotonic clock, in seconds."""
    pid: int
    text: str


class StartNotes(logging.Handler):
    """Appends the lines that begin or end a phase to the file that the environment names."""

    def emit(self, record: logging.LogRecord) -> None:
        """Note a line; what can't be written is left out."""
        now = time.monotonic()
        with contextlib.suppress(Exception):  # a note is never worth a failed start
            text = record.getMessage()
            if _NOTED.search(text):
                line = StartNote(at=now, pid=os.getpid(), text=text[:LONGEST]).model_dump_json() + "\n"
                descriptor = os.open(os.environ[NOTES], os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    os.write(descriptor, line.encode())
                finally:
                    os.close(descriptor)


def read_notes(path: Path) -> list[StartNote]:
    """Return all notes in the order of their times; none where nothing was noted."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for line in path.read_text(errors="replace").splitlines():
            with contextlib.suppress(ValidationError):  # torn, of a process that was killed
                found.append(StartNote.model_validate_json(line))
    return sorted(found, key=lambda each: each.at)


@contextlib.contextmanager
def noting_configuration(made: Callable[[float], None]) -> Iterator[None]:
    """Tell `made` when vLLM has made its configuration, on the monotonic clock in seconds."""
    from vllm.engine.arg_utils import EngineArgs

    make = EngineArgs.create_engine_config

    def timed(*args: object, **kwargs: object) -> object:
        config = make(*args, **kwargs)
        made(time.monotonic())
        return config

    EngineArgs.create_engine_config = timed
    try:
        yield
    finally:
        EngineArgs.create_engine_config = make


def logging_configuration() -> str:
    """Return what VLLM_LOGGING_CONFIG_PATH is to name, as JSON: vLLM's usual log, with DEBUG lines, and the notes."""
    return json.dumps(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "usual": {
                    "class": "vllm.logging_utils.NewLineFormatter",
                    "datefmt": "%m-%d %H:%M:%S",
                    "format": "%(levelname)s %(asctime)s [%(filename)s:%(lineno)d] %(message)s",
                }
            },
            "handlers": {
                "usual": {
                    "class": "logging.StreamHandler",
                    "formatter": "usual",
                    "level": "DEBUG",
                    "stream": "ext://sys.stdout",
                },
                "notes": {"class": f"{__name__}.{StartNotes.__name__}", "level": "DEBUG"},
            },
            "loggers": {"vllm": {"handlers": ["usual", "notes"], "level": "DEBUG", "propagate": False}},
        }
    )
