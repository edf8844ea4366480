"""Notes of vLLM's processes during a start: log lines that begin or end a phase, with the monotonic clock.

vLLM's own log only has whole seconds. All its processes read the same logging configuration when they import vLLM, and
this configuration names the handler in this module.
"""

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
"""Environment variable with the path of the notes; without it no notes are taken."""

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
"""Pattern of the noted lines."""

_NOTED = re.compile(NOTED)

LONGEST = 200
"""Number of characters kept of a line."""


class StartNote(Strict):
    """A line of vLLM's log."""

    at: float
    """Time on the machine's monotonic clock, in seconds."""
    pid: int
    text: str


class StartNotes(logging.Handler):
    """Log handler that appends lines which begin or end a phase to the file in the environment."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a note; errors are ignored."""
        now = time.monotonic()
        with contextlib.suppress(Exception):  # a start must not fail because of a note
            text = record.getMessage()
            if _NOTED.search(text):
                line = StartNote(at=now, pid=os.getpid(), text=text[:LONGEST]).model_dump_json() + "\n"
                with Path(os.environ[NOTES]).open("a") as file:  # processes share it: a short line is one write
                    file.write(line)


def read_notes(path: Path) -> list[StartNote]:
    """Return all notes by time; empty if there are none."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for line in path.read_text(errors="replace").splitlines():
            with contextlib.suppress(ValidationError):  # torn line of a killed process
                found.append(StartNote.model_validate_json(line))
    return sorted(found, key=lambda each: each.at)


@contextlib.contextmanager
def noting_configuration(made: Callable[[float], None]) -> Iterator[None]:
    """Call `made` when vLLM has made its configuration, with the time on the monotonic clock in seconds."""
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
    """Return the JSON for VLLM_LOGGING_CONFIG_PATH: vLLM's usual log with DEBUG lines, and the notes."""
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
