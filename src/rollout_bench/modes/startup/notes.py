"""Notes of vLLM's processes during a start: log lines that begin or end a phase, with the monotonic clock.

vLLM's own log only has whole seconds. All its processes read the same logging configuration when they import vLLM, and
this configuration adds a second log with the times of this module.
"""

import json
import logging
import os
import re
import time
from pathlib import Path
from typing import NamedTuple

NOTED = re.compile(
    r"Initializing a V1 LLM engine|Starting to load model|Loading weights on|Initializing model took"
    r"|Loading weights took|Model loading took|Start compiling function|Compiling model again"
    r"|Dynamo bytecode transform time|Compiling a graph for|Directly load"
    r"|torch\.compile (?:and initial profiling/warmup run together )?took"
    r"|saved AOT compiled function|Warming up model for the compilation"
    r"|Warming up done|Memory profiling takes|Available KV cache memory"
    r"|for KV cache on node|KV cache layout|KV cache size"
    r"|Capturing a cudagraph on|Graph capturing finished|init engine \("
)
"""Pattern of the lines that begin or end a phase."""

LINE = re.compile(r"([0-9.]+) (\d+) (.*)")


class StartNote(NamedTuple):
    """A line of vLLM's log; `at` is a time on the machine's monotonic clock, in seconds."""

    at: float
    pid: int
    text: str


class TimedLines(logging.Formatter):
    """Formats a line of the log as a note."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the time, the process and the text."""
        return f"{time.monotonic()} {os.getpid()} {record.getMessage()}"


def read_notes(path: Path) -> list[StartNote]:
    """Return the notes of lines that begin or end a phase, by time; empty if there are none."""
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    matches = [LINE.fullmatch(line) for line in lines if NOTED.search(line)]
    return sorted(StartNote(float(note[1]), int(note[2]), note[3]) for note in matches if note)


def logging_configuration(notes: Path) -> str:
    """Return the JSON for VLLM_LOGGING_CONFIG_PATH: vLLM's usual log with DEBUG lines, and the file `notes`."""
    return json.dumps(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "usual": {
                    "class": "vllm.logging_utils.NewLineFormatter",
                    "datefmt": "%m-%d %H:%M:%S",
                    "format": "%(levelname)s %(asctime)s [%(filename)s:%(lineno)d] %(message)s",
                },
                "notes": {"()": f"{__name__}.{TimedLines.__name__}"},
            },
            "handlers": {
                "usual": {
                    "class": "logging.StreamHandler",
                    "formatter": "usual",
                    "level": "DEBUG",
                    "stream": "ext://sys.stdout",
                },
                "notes": {
                    "class": "logging.FileHandler",
                    "formatter": "notes",
                    "level": "DEBUG",
                    "filename": str(notes),
                },
            },
            "loggers": {"vllm": {"handlers": ["usual", "notes"], "level": "DEBUG", "propagate": False}},
        }
    )
